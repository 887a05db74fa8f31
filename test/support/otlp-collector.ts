import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { closeAfter } from './open-resources.ts';
import { until } from './until.ts';

/** A span of OTLP/JSON, with its attributes as an object. */
export interface CollectedSpan {
  readonly service: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly name: string;
  /** OTLP enumeration: 1 internal, 2 server, 3 client, 4 producer, 5 consumer. */
  readonly kind: number;
  /** OTLP enumeration: 2 is an error. */
  readonly status: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly endedAt: number;
}

/** Handles an export. */
export type CollectorBehaviour = (response: ServerResponse) => void;

const takes: CollectorBehaviour = (response) => {
  response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
};

/** An OpenTelemetry collector's HTTP receiver (`POST /v1/traces`, JSON) that stores what it receives. */
export class OtlpCollector {
  readonly url: string;
  readonly spans: CollectedSpan[] = [];
  /** Every body as received, for tests of forbidden contents. */
  readonly bodies: string[] = [];
  readonly requests: { readonly url: string; readonly headers: IncomingHttpHeaders }[] = [];
  behaviour: CollectorBehaviour = takes;

  private constructor(url: string) {
    this.url = url;
  }

  static async start(): Promise<OtlpCollector> {
    const server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        collector.#take(request.url ?? '', request.headers, Buffer.concat(chunks).toString('utf8'));
        collector.behaviour(response);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closeAfter('file', () => {
      server.closeAllConnections();
      server.close();
    });
    const { port } = server.address() as AddressInfo;
    const collector = new OtlpCollector(`http://127.0.0.1:${port}`);
    return collector;
  }

  /** Resolves when a matching span has arrived. */
  async span(label: string, matches: (span: CollectedSpan) => boolean): Promise<CollectedSpan> {
    await until(() => this.spans.some(matches), { timeoutMs: 15_000, label: `a span: ${label}` });
    const [found] = this.spans.filter(matches);
    if (!found) throw new Error(`no span: ${label}`);
    return found;
  }

  named(name: string): Promise<CollectedSpan> {
    return this.span(name, (span) => span.name === name);
  }

  trace(traceId: string): CollectedSpan[] {
    return this.spans.filter((span) => span.traceId === traceId);
  }

  #take(url: string, headers: IncomingHttpHeaders, body: string): void {
    this.requests.push({ url, headers });
    this.bodies.push(body);
    const { resourceSpans } = JSON.parse(body) as Export;
    for (const { resource, scopeSpans } of resourceSpans) {
      const service = String(valuesOf(resource.attributes)['service.name']);
      for (const span of scopeSpans.flatMap(({ spans }) => spans)) this.spans.push(collected(service, span));
    }
  }
}

interface OtlpAttribute {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}

interface OtlpSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly OtlpAttribute[];
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  readonly status: { readonly code?: number };
}

interface Export {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly OtlpAttribute[] };
    readonly scopeSpans: readonly { readonly spans: readonly OtlpSpan[] }[];
  }[];
}

function collected(service: string, span: OtlpSpan): CollectedSpan {
  const { traceId, spanId, parentSpanId, name, kind, status, attributes, links } = span;
  return {
    service,
    traceId,
    spanId,
    parentSpanId,
    name,
    kind,
    status: status.code ?? 0,
    attributes: valuesOf(attributes),
    links,
    startedAt: Number(span.startTimeUnixNano) / 1e6,
    endedAt: Number(span.endTimeUnixNano) / 1e6,
  };
}

/** OTLP puts each value under the name of its type. */
function valuesOf(attributes: readonly OtlpAttribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}
