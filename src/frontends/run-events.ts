import { TollgateError } from '../protocol/errors.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
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
  /** One event of the run, in the order of the log; undefined if the protocol has none for it. */
  event(event: RunEvent): StreamOutput | undefined;
  /** All events so far have been rendered; those that follow are live. */
  caughtUp?(): StreamOutput | undefined;
}

/**
 * Encoder of a stream with the events of one run. The renderer decides when the stream is complete.
 */
export function runEncoder(runId: string, renderer: RunRenderer): StreamEncoder {
  const { protocol, contentType, headers, keepAlive } = renderer;
  return {
    protocol,
    contentType,
    keepAlive,
    ...(headers ? { headers } : {}),
    entry: (entry) => renderEntry(runId, renderer, entry),
    message: (type, fields) => {
      return type === 'resumed' ? renderer.caughtUp?.() : gapOutput(type, fields, renderer.error);
    },
    error: renderer.error,
  };
}

function renderEntry(runId: string, renderer: RunRenderer, entry: LogEntry): StreamOutput | undefined {
  const event = eventOf(runId, entry);
  if (!event) return undefined;
  return renderer.event(event);
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
