import { allEvents, RUNS } from './check-operations.ts';
import { FAULTS } from './faults.ts';
import { type BilledRecord, type HistoryLine, type Invoked, linesOf, type UserLog } from './history.ts';

/** Writes that were acknowledged this long before a master was lost had reached a replica. */
const REPLICATION_MS = 1_000;
/** Workers and gateways have restored their runs this long after the healing, if they are alive. */
const RESTORED_MS = 15_000;
/** A worker keeps the log of an ended run for a minute (`src/runs/recent-runs.ts`). */
const KEPT_MS = 55_000;
/** Faults after which a process has no runs to restore. */
const KILLS = ['worker-kill', 'gateway-kill'];

interface Window {
  readonly loses: 'everything' | 'unreplicated';
  /** When the fault began. */
  readonly at: number;
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
    return [{ loses, at, from: loses === 'everything' ? 0 : at - REPLICATION_MS, to }];
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
  const { ids, keys, runs } = uncertain(history, windows);
  const lost = lostRuns(history, windows);
  const logged = new Set(allEvents(history).map(({ runId }) => runId));
  return history.flatMap((line): HistoryLine[] => {
    switch (line.t) {
      case 'ok':
        return [ids.has(line.id) ? { t: 'unknown', id: line.id, at: line.at } : line];
      case 'failed':
        // A quota that was used up, and an answer that was given, may be lost too. A refused run does not exist at all.
        return [ids.get(line.id) === 'other' ? { t: 'unknown', id: line.id, at: line.at } : line];
      case 'accepted':
        return lost.has(line.runId) ? [] : [line];
      case 'event':
        return [windows.some(({ from, to }) => line.at >= from && line.at <= to) ? { ...line, uncertain: true } : line];
      case 'lost':
        return line.at < first ? [line] : [];
      case 'executions':
        return [{ ...line, keys: line.keys.filter((key) => !keys.has(key)), uncertain: [...keys] }];
      case 'threads':
        return [{ ...line, uncertain: [...runs] }];
      case 'ledger': {
        // Its process submits a lost record again; the event is not restored, or the call ends in another way. Of a run
        // that two workers executed, the part of the first one is lost if the second one restores the run first.
        const isUnnamed = ({ key, runId }: BilledRecord) => {
          return keys.has(key ?? '') || (runId !== null && (runs.has(runId) || !logged.has(runId)));
        };
        return [{ ...line, unnamed: line.records.filter(isUnnamed).map(({ id }) => id) }];
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

/** Operations that were in progress in a window, all operations with their keys, and their runs. */
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
  const affected = invoked.filter(({ key }) => keys.has(key));
  const ids = new Map(affected.map(({ id, op }) => [id, RUNS.includes(op) ? 'run' : 'other'] as const));
  const accepted = linesOf(history, 'accepted').flatMap(({ id, runId }) => (ids.has(id) ? runId : []));
  const answered = linesOf(history, 'ok').flatMap(({ id, runId }) => (ids.has(id) ? (runId ?? []) : []));
  const logged = allEvents(history).flatMap((event) => (keys.has(event.requestId ?? '') ? (event.runId ?? []) : []));
  return { ids, keys, runs: new Set([...accepted, ...answered, ...logged]) };
}

/**
 * Returns the runs that may have no event in the new history: the processes that keep them were killed before they could
 * restore them, or the runs had ended too long before.
 */
function lostRuns(history: readonly HistoryLine[], windows: readonly Window[]): Set<string> {
  const ends = new Map(linesOf(history, 'ok').map(({ id, at }) => [id, at]));
  const kills = linesOf(history, 'fault').flatMap(({ kind, at }) => (KILLS.includes(kind) ? at : []));
  const isLost = ({ id, at }: { readonly id: number; readonly at: number }) => {
    return windows.some((loss) => {
      if (at < loss.from || at > loss.to) return false;
      const isOld = (ends.get(id) ?? Number.POSITIVE_INFINITY) < loss.at - KEPT_MS;
      return isOld || kills.some((kill) => kill >= at && kill <= loss.to + RESTORED_MS);
    });
  };
  return new Set(linesOf(history, 'accepted').flatMap((line) => (isLost(line) ? line.runId : [])));
}
