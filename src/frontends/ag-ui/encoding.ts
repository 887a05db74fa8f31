import { publicError, type TollgateError } from '../../protocol/errors.ts';
import { KEEP_ALIVE } from '../run-events.ts';
import type { AgUiEvent } from './events.ts';

/** A framing of AG-UI events. */
export interface AgUiFraming {
  readonly contentType: string;
  readonly keepAlive: string | undefined;
  encode(events: readonly AgUiEvent[]): string | Uint8Array;
}

/** Clients split events at LF LF only, and fail at CRLF. The `id` is for clients that resume by `Last-Event-ID`. */
const SSE: AgUiFraming = {
  contentType: 'text/event-stream',
  keepAlive: KEEP_ALIVE,
  encode: (events) => events.map((event) => `${idLine(event)}data: ${JSON.stringify(event)}\n\n`).join(''),
};

function idLine({ metadata }: AgUiEvent): string {
  return metadata?.tollgate.seq === undefined ? '' : `id: ${metadata.tollgate.epoch}:${metadata.tollgate.seq}\n`;
}

const PROTOBUF_TYPE = 'application/vnd.ag-ui.event+proto';
const LENGTH_BYTES = 4;

/** Selects the framing that a client accepts. */
export async function framingFor(accept: string | undefined): Promise<AgUiFraming> {
  return accept?.includes(PROTOBUF_TYPE) ? protobufFraming() : SSE;
}

/**
 * Each event is preceded by its length, 4 bytes, big-endian. Clients compare the content type with `===`: with a
 * parameter they would read the body as server-sent events. The framing has no bytes without a meaning, so it has no
 * keep-alive.
 */
async function protobufFraming(): Promise<AgUiFraming> {
  // Loaded on demand: the clients of the reference implementation ask for server-sent events.
  const { encode } = await import('@ag-ui/proto');
  return {
    contentType: PROTOBUF_TYPE,
    keepAlive: undefined,
    encode: (events) =>
      Buffer.concat(
        events.flatMap((event) => {
          const body = encode(event as unknown as Parameters<typeof encode>[0]);
          const length = Buffer.alloc(LENGTH_BYTES);
          length.writeUInt32BE(body.length);
          return [length, body];
        }),
      ),
  };
}

/** The terminal event of a stream that breaks. Clients do not see HTTP headers, so the event has the time to wait. */
export function streamError(error: TollgateError): AgUiEvent {
  const { code, message, ...rest } = publicError(error);
  return { type: 'RUN_ERROR', code, message, metadata: { tollgate: { error: { code, message, ...rest } } } };
}
