import { FAULTS } from './faults.ts';
import { type HistoryLine, type Invoked, linesOf, type UserLog } from './history.ts';

/** Writes that were acknowledged this long before a master was lost had reached a replica. */
const REPLICATION_MS = 1_000;

interface Window {
  readonly from: number;
  readonly to: number;
}

/** Returns the periods whose acknowledgements a fault may have lost. */
function lossWindows(history: readonly HistoryLine[]): Window[] {
  const healed = new Map(linesOf(history, 'healed').map(({ id, at }) => [id, at]));
  return linesOf(history, 'fault').flatMap(({ id, kind, at }) => {
    const loses = FAULTS.find((fault) => fault.kind === kind)?.loses;
    if (loses === undefined) return [];
    const to = (healed.get(id) ?? Number.POSITIVE_INFINITY) + REPLICATION_MS;
    return [{ from: loses === 'everything' ? 0 : at - REPLICATION_MS, to }];
  });
}

/**
 * Returns a history in which an acknowledgement that Redis may have lost proves nothing: the outcome of each operation
 * in such a period is `unknown`. What remains to be proved: each accepted run has one terminal event, no key is charged
 * twice, logs have no gaps, and the ledger proves itself. A history without such a fault is returned as it is.
 */
export function withoutLosses(history: readonly HistoryLine[]): readonly HistoryLine[] {
  const windows = lossWindows(history);
  if (windows.length === 0) return history;
  const first = Math.min(...windows.map(({ from }) => from));
  const { ids, keys } = uncertain(history, windows);
  return history.flatMap((line): HistoryLine[] => {
    switch (line.t) {
      case 'ok':
        return [ids.has(line.id) ? { t: 'unknown', id: line.id, at: line.at } : line];
      case 'lost':
        return line.at < first ? [line] : [];
      case 'executions':
        return [{ ...line, keys: line.keys.filter((key) => !keys.has(key)) }];
      case 'ledger': {
        // Its process submits a lost record again; the event is not restored, or the call ends in another way.
        const unnamed = line.records.filter(({ key }) => key !== null && keys.has(key)).map(({ id }) => id);
        return [{ ...line, unnamed }];
      }
      case 'log':
        return [withoutOrphans(line)];
      case 'usage':
        // The counters of a user go back with the calls, and the ledger has their records again.
        return [];
      default:
        return [line];
    }
  });
}

/** A call may have only its end in the new history: its beginning is lost. */
function withoutOrphans(log: UserLog): UserLog {
  const begun = new Set(log.events.flatMap(({ type, callId }) => (type === 'tool_executing' ? (callId ?? []) : [])));
  const events = log.events.map((event) => {
    return event.callId === undefined || begun.has(event.callId) ? event : { ...event, callId: undefined };
  });
  return { ...log, events };
}

/** Operations that were in progress in a window, and all operations with their keys. */
function uncertain(history: readonly HistoryLine[], windows: readonly Window[]) {
  const ends = new Map<number, number>();
  for (const line of history) {
    if (line.t === 'ok' || line.t === 'failed' || line.t === 'unknown') ends.set(line.id, line.at);
  }
  const invoked = linesOf(history, 'invoked');
  const overlaps = ({ id, at }: Invoked) => {
    return windows.some(({ from, to }) => at <= to && (ends.get(id) ?? Number.POSITIVE_INFINITY) >= from);
  };
  const keys = new Set(invoked.filter(overlaps).map(({ key }) => key));
  const ids = new Set(invoked.filter(({ key }) => keys.has(key)).map(({ id }) => id));
  return { ids, keys };
}
