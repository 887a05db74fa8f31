import { TollgateError } from '../protocol/errors.ts';
import { type Fields, isTerminalEvent, type LogEntry, type ServerEventType } from '../protocol/messages.ts';
import type { StreamEncoder, StreamOutput } from '../transports/event-stream-transport.ts';

/** A durable event of one run. */
export interface RunEvent {
  /** A `DurableEventType`, or a type that only a newer version of Tollgate appends. */
  readonly type: string;
  readonly epoch: string;
  readonly seq: number;
  readonly fields: Fields;
}

/** Position of an event in the log, as the `id` of an event stream: `<epoch>:<seq>`. */
export function eventId({ epoch, seq }: Pick<LogEntry, 'epoch' | 'seq'>): string {
  return `${epoch}:${seq}`;
}

/** A comment: proxies pass it on at once, and clients ignore it. */
export const KEEP_ALIVE = ': tollgate\n\n';

/** How a protocol renders the events of one run. */
export interface RunRenderer extends Omit<StreamEncoder, 'entry' | 'message'> {
  /** The bytes of one event of the run, in the order of the log; undefined if the protocol has none for it. */
  event(event: RunEvent): string | Uint8Array | undefined;
}

/**
 * Encoder of a stream with the events of one run. The stream is complete after the terminal event of the run.
 */
export function runEncoder(runId: string, renderer: RunRenderer): StreamEncoder {
  const { protocol, contentType, headers, keepAlive } = renderer;
  return {
    protocol,
    contentType,
    keepAlive,
    ...(headers ? { headers } : {}),
    entry: (entry) => renderEntry(runId, renderer, entry),
    message: (type, fields) => gapOutput(type, fields, renderer.error),
    error: renderer.error,
  };
}

function renderEntry(runId: string, renderer: RunRenderer, entry: LogEntry): StreamOutput | undefined {
  const event = eventOf(runId, entry);
  if (!event) return undefined;
  const bytes = renderer.event(event) ?? '';
  return isTerminalEvent(event.type) ? { bytes, ends: true } : { bytes };
}

/**
 * Ends the stream of a run whose events the log has lost in part: the client has to start again. Other transient events
 * do not belong to the stream of a run.
 */
export function gapOutput(
  type: ServerEventType,
  fields: Fields,
  render: StreamEncoder['error'],
): StreamOutput | undefined {
  if (type !== 'resume_failed') return undefined;
  return { bytes: render(new TollgateError('EVENTS_TRIMMED', { retryable: true, fields })), ends: true };
}

/** Parses an entry; undefined if it belongs to another run. */
export function eventOf(runId: string, { type, epoch, seq, json }: LogEntry): RunEvent | undefined {
  // Most events of other runs are recognised without parsing them.
  if (!json.includes(`"${runId}"`)) return undefined;
  const fields: Fields = JSON.parse(json);
  return fields.run_id === runId ? { type, epoch, seq, fields } : undefined;
}
