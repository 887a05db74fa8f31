import { TollgateError } from '../../protocol/errors.ts';
import type { StreamEncoder, StreamOutput } from '../../transports/event-stream-transport.ts';
import { eventOf } from '../run-events.ts';
import type { AgUiRun } from './ag-ui-run.ts';
import { type AgUiFraming, streamError } from './encoding.ts';
import type { AgUiEvent } from './events.ts';

export interface AgUiStream {
  readonly run: AgUiRun;
  /** The run as Tollgate names it. */
  readonly tollgateRunId: string;
  readonly framing: AgUiFraming;
  /** Whether the client may have seen a part of the run: the events so far then arrive as a prelude. */
  readonly catchesUp: boolean;
}

/**
 * Encoder of a stream with one run, which starts at the first event of the run in the log. It is complete after the
 * terminal event, or with the interrupt of a run that waits for its user. A wait that has ended meanwhile is no
 * interrupt.
 *
 *     catching up ──resumed: the prelude──► live ──terminal event or interrupt──► complete
 */
export function agUiEncoder({ run, tollgateRunId, framing, catchesUp }: AgUiStream): StreamEncoder {
  let isLive = !catchesUp;
  let hasCaughtUp = false;
  const output = (events: readonly AgUiEvent[]): StreamOutput => {
    run.releaseHistory();
    const isInterrupted = hasCaughtUp && run.isPaused;
    const bytes = framing.encode(isInterrupted ? [...events, ...run.interrupted()] : events);
    return run.hasEnded || isInterrupted ? { bytes, ends: true } : { bytes };
  };
  return {
    protocol: 'ag_ui',
    contentType: framing.contentType,
    keepAlive: framing.keepAlive,
    entry(entry) {
      const event = eventOf(tollgateRunId, entry);
      if (!event) return undefined;
      const events = run.add(event);
      return isLive ? output(events) : undefined;
    },
    message(type, fields) {
      if (type === 'resume_failed') {
        const error = new TollgateError('EVENTS_TRIMMED', { retryable: true, fields });
        return { bytes: framing.encode([streamError(error)]), ends: true };
      }
      if (type !== 'resumed' || hasCaughtUp) return undefined;
      hasCaughtUp = true;
      const events = isLive ? [] : run.prelude();
      isLive = true;
      return output(events);
    },
    error: (error) => framing.encode([streamError(error)]),
  };
}
