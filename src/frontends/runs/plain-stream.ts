import { flatDialect } from '../../protocol/dialects.ts';
import { publicError, type TollgateError } from '../../protocol/errors.ts';
import { isTerminalEvent, type LogEntry } from '../../protocol/messages.ts';
import type { StreamEncoder } from '../../transports/event-stream-transport.ts';
import { eventId, eventOf, gapOutput, KEEP_ALIVE } from '../run-events.ts';

/**
 * Reconnection time that an ended stream sends to clients that reconnect by themselves, such as EventSource, when only
 * the user can change the reason: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
const NOT_BEFORE_MS = 3_600_000;
const RETRY_MS = 1_000;

/**
 * Encodes events as server-sent events with the frames of `/ws` as data. They have no `event` field, so one `message`
 * listener receives all of them; durable events have an `id`.
 * @param runId only the durable events of this run, and the stream ends with it; undefined for all events of the user
 */
export function plainEncoder(now: () => number, runId?: string): StreamEncoder {
  const error = (thrown: TollgateError) =>
    `${retryLine(thrown)}data: ${flatDialect.encodeError(thrown, new Date(now()), undefined)}\n\n`;
  const form = { protocol: 'sse', contentType: 'text/event-stream', keepAlive: KEEP_ALIVE, error };
  if (runId === undefined) {
    return {
      ...form,
      entry: (entry) => ({ bytes: durable(entry) }),
      message: (type, fields) => ({
        bytes: `data: ${flatDialect.encode(type, fields, new Date(now()), undefined)}\n\n`,
      }),
    };
  }
  return {
    ...form,
    entry(entry) {
      if (!eventOf(runId, entry)) return undefined;
      return isTerminalEvent(entry.type) ? { bytes: durable(entry), ends: true } : { bytes: durable(entry) };
    },
    message: (type, fields) => gapOutput(type, fields, error),
  };
}

function durable(entry: LogEntry): string {
  return `id: ${eventId(entry)}\ndata: ${flatDialect.encodeEntry(entry)}\n\n`;
}

function retryLine(error: TollgateError): string {
  const { retryable, retry_after_ms } = publicError(error);
  return `retry: ${retry_after_ms ?? (retryable ? RETRY_MS : NOT_BEFORE_MS)}\n`;
}
