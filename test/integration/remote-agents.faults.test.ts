import type { ServerResponse } from 'node:http';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { AgentServer, type Serve } from '../support/agent-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RemoteRuns } from '../support/remote-runs.ts';
import { until } from '../support/until.ts';

let server: AgentServer;
let runs: RemoteRuns;

beforeAll(async () => {
  runs = await RemoteRuns.start();
});

/** How each kind writes one piece of text, and an event of a given size. */
const sse = (value: object) => `data: ${JSON.stringify(value)}\n\n`;
const KINDS = {
  http: {
    settings: { secret: '$' + '{AGENT_SECRET}' },
    type: 'application/x-ndjson',
    text: (delta: string) => `${JSON.stringify({ type: 'text', delta })}\n`,
    junk: 'no JSON\n',
  },
  agui: {
    settings: {},
    type: 'text/event-stream',
    text: (delta: string) => sse({ type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta }),
    junk: 'data: no JSON\n\n',
  },
  responses: {
    settings: { background: false },
    type: 'text/event-stream',
    text: (delta: string) => sse({ type: 'response.output_text.delta', item_id: 'i', delta }),
    junk: 'data: no JSON\n\n',
  },
  a2a: {
    settings: {},
    type: 'text/event-stream',
    text: (text: string) =>
      sse({ jsonrpc: '2.0', id: 1, result: { statusUpdate: { status: { message: { parts: [{ text }] } } } } }),
    junk: 'data: no JSON\n\n',
  },
} as const;
type Kind = (typeof KINDS)[keyof typeof KINDS];

const headed = (kind: Kind, response: ServerResponse) => {
  response.writeHead(200, { 'content-type': kind.type });
  return response;
};

interface Fault {
  readonly serve: (kind: Kind) => Serve;
  readonly code: string;
  readonly reason: string | ((kind: string) => string);
}

const FAULTS: Readonly<Record<string, Fault>> = {
  'answers 503 with Retry-After': {
    serve: () => (_request, response) => void response.writeHead(503, { 'retry-after': '7' }).end(),
    code: 'AGENT_UNAVAILABLE',
    reason: 'unavailable',
  },
  'answers 429': {
    serve: () => (_request, response) => void response.writeHead(429).end(),
    code: 'AGENT_UNAVAILABLE',
    reason: 'rate_limited',
  },
  'answers 401': {
    serve: () => (_request, response) => void response.writeHead(401).end('secret detail'),
    code: 'AGENT_FAILED',
    reason: 'refused',
  },
  'redirects to another host': {
    serve: () => (_request, response) => void response.writeHead(307, { location: 'http://169.254.169.254/' }).end(),
    code: 'AGENT_FAILED',
    reason: 'refused',
  },
  'never answers': { serve: () => () => undefined, code: 'AGENT_FAILED', reason: 'timeout' },
  'hangs in its response': {
    serve: (kind) => (_request, response) => void headed(kind, response).write(kind.text('Half.')),
    code: 'AGENT_FAILED',
    reason: (kind) => (kind === 'a2a' ? 'invalid' : 'timeout'),
  },
  'dies in its response': {
    serve: (kind) => (_request, response) => {
      headed(kind, response).write(kind.text('Half.'), () => setTimeout(() => response.socket?.resetAndDestroy(), 20));
    },
    code: 'AGENT_FAILED',
    reason: (kind) => (kind === 'a2a' ? 'invalid' : 'interrupted'),
  },
  'ends its response early': {
    serve: (kind) => (_request, response) => void headed(kind, response).end(),
    code: 'AGENT_FAILED',
    reason: 'interrupted',
  },
  'floods with events': {
    serve: (kind) => (_request, response) => {
      headed(kind, response);
      const flood = () => {
        while (!response.destroyed && response.write(kind.text('x').repeat(1_000)));
        if (!response.destroyed) response.once('drain', flood);
      };
      flood();
    },
    code: 'AGENT_FAILED',
    reason: (kind) => (kind === 'a2a' ? 'invalid' : 'too_large'),
  },
  'floods with one endless line': {
    serve: (kind) => (_request, response) => {
      headed(kind, response).write(kind.text('x').slice(0, 20));
      const flood = () => {
        while (!response.destroyed && response.write('x'.repeat(16_384)));
        if (!response.destroyed) response.once('drain', flood);
      };
      flood();
    },
    code: 'AGENT_FAILED',
    reason: 'too_large',
  },
  'sends no JSON': {
    serve: (kind) => (_request, response) => void headed(kind, response).end(kind.junk),
    code: 'AGENT_FAILED',
    reason: 'invalid',
  },
  'sends JSON of endless depth': {
    serve: (kind) => (_request, response) => {
      const line = '['.repeat(5_000);
      headed(kind, response).end(kind.type === 'text/event-stream' ? `data: ${line}\n\n` : `${line}\n`);
    },
    code: 'AGENT_FAILED',
    reason: 'invalid',
  },
};

const BOUNDS = { response_seconds: 0.4, idle_seconds: 0.4, event_kib: 8, total_kib: 64 };
const CASES = Object.keys(KINDS).flatMap((kind) => Object.keys(FAULTS).map((fault) => [kind, fault] as const));

describe('an agent that hangs, floods, lies or dies', () => {
  it.each(CASES)('of kind %s that %s costs its run, with a clear error', async (name, fault) => {
    // A server of its own for each case, because agents at one origin share a circuit breaker.
    server = await AgentServer.start();
    closeAfter('test', () => server.close());
    const kind = KINDS[name as keyof typeof KINDS];
    const { serve, code, reason } = FAULTS[fault] as Fault;
    const faulty = serve(kind);
    server.serve = (request, response, at) => {
      if (request.path.startsWith('/.well-known')) return void response.writeHead(404).end();
      return faulty(request, response, at);
    };
    const row = { kind: name, url: server.url, ...kind.settings, ...BOUNDS };
    const { end, events } = await runs.run(row);
    expect(end).toBe('failed');
    const { error } = events.at(-1) as unknown as { error: { code: string; reason: string; retry_after_ms?: number } };
    expect(error).toMatchObject({ code, reason: typeof reason === 'string' ? reason : reason(name) });
    if (fault.includes('Retry-After')) expect(error.retry_after_ms).toBe(7_000);
    expect(JSON.stringify(events)).not.toMatch(/secret detail|127\.0\.0\.1/);
  });

  it('gets no request while its circuit breaker is open, and other servers do', async () => {
    server = await AgentServer.start();
    closeAfter('test', () => server.close());
    server.serve = (_request, response) => void response.writeHead(503).end();
    const row = { kind: 'http', url: server.url, ...KINDS.http.settings };
    const executor = runs.executor(row);
    const reasons: unknown[] = [];
    for (let at = 0; at < 7; at++) {
      const accepted = await runs.accept(row);
      await executor.execute(await runs.claim(row, accepted));
      reasons.push((await runs.events(accepted)).at(-1)?.error);
    }
    expect(reasons.slice(0, 5)).toEqual(Array(5).fill(expect.objectContaining({ reason: 'unavailable' })));
    expect(reasons.slice(5)).toEqual(Array(2).fill(expect.objectContaining({ reason: 'breaker_open' })));
    expect(server.requests).toHaveLength(5);
    const other = await AgentServer.start();
    closeAfter('test', () => other.close());
    other.serve = (_request, response) => void response.end('{"type":"done","final_response":"Here."}\n');
    expect((await runs.run({ ...row, url: other.url })).end).toBe('completed');
  });

  it('does not keep its connection after the run has ended', async () => {
    server = await AgentServer.start();
    closeAfter('test', () => server.close());
    let closed = false;
    server.serve = (_request, response) => {
      response.on('close', () => {
        closed = true;
      });
      response.writeHead(200).write('{"type":"done","final_response":"Done."}\n');
    };
    expect((await runs.run({ kind: 'http', url: server.url, ...KINDS.http.settings })).end).toBe('completed');
    await until(() => closed);
  });
});
