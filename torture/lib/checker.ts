import { checkDeliveries, checkLogs } from './check-events.ts';
import { checkLedger } from './check-ledger.ts';
import { checkAnswers, checkCaps, checkKeys, checkQuotas } from './check-objects.ts';
import { checkRuns, checkToolCalls } from './check-operations.ts';
import { checkMessageLimits, checkRevocations, checkThreads } from './check-users.ts';
import { type HistoryLine, linesOf } from './history.ts';
import { withoutLosses } from './losses.ts';
import type { Violation } from './promises.ts';

/** Checks everything that the history of a round states. It reads nothing else. */
export function check(recorded: readonly HistoryLine[]): Violation[] {
  const history = withoutLosses(recorded);
  const missing = checkEvidence(recorded);
  // A round that ended before its state was read has no logs and no ledger to compare with.
  if (linesOf(history, 'finished').length === 0) return [...missing, ...processFailures(history)];
  return [
    ...missing,
    ...checkDeliveries(history),
    ...checkLogs(history),
    ...checkRuns(history),
    ...checkToolCalls(history),
    ...checkLedger(history),
    ...checkKeys(history),
    ...checkCaps(history),
    ...checkQuotas(history),
    ...checkMessageLimits(history),
    ...checkRevocations(history),
    ...checkAnswers(history),
    ...checkThreads(history),
    ...checkResources(history),
    ...processFailures(history),
  ];
}

function processFailures(history: readonly HistoryLine[]): Violation[] {
  return linesOf(history, 'process').map(({ what }) => ({ promise: 'processes', what }));
}

/** A history that lacks something proves nothing. */
function checkEvidence(history: readonly HistoryLine[]): Violation[] {
  const missing: string[] = [];
  const [finished] = linesOf(history, 'finished');
  if (!finished) missing.push('the last line');
  const logs = new Set(linesOf(history, 'log').map(({ user }) => user));
  const usages = new Set(linesOf(history, 'usage').map(({ user }) => user));
  const caps = new Set(linesOf(history, 'caps').map(({ user }) => user));
  for (const user of finished?.users ?? []) {
    if (!caps.has(user)) missing.push(`the cap of ${user}`);
    if (!logs.has(user)) missing.push(`the event log of ${user}`);
    if (!usages.has(user)) missing.push(`the usage of ${user}`);
  }
  const ended = new Set(history.flatMap((line) => (isEnd(line) ? [line.id] : [])));
  for (const { id, op } of linesOf(history, 'invoked')) {
    if (!ended.has(id)) missing.push(`the end of operation ${id} (${op})`);
  }
  for (const kind of ['ledger', 'executions'] as const) {
    if (linesOf(history, kind).length !== 1) missing.push(`one line "${kind}"`);
  }
  for (const kind of ['resource', 'cap', 'event', 'ok'] as const) {
    if (linesOf(history, kind).length === 0) missing.push(`any line "${kind}"`);
  }
  return missing.map((what) => ({ promise: 'evidence', what: `The history lacks ${what}.` }));
}

function isEnd(line: HistoryLine): line is Extract<HistoryLine, { t: 'ok' | 'failed' | 'unknown' }> {
  return line.t === 'ok' || line.t === 'failed' || line.t === 'unknown';
}

function checkResources(history: readonly HistoryLine[]): Violation[] {
  const above = linesOf(history, 'resource').filter(({ before, after, slack = 0 }) => after > before + slack);
  return above.map(({ name, before, after, slack = 0 }) => {
    const allowed = slack === 0 ? '' : ` (${slack} more are allowed)`;
    return { promise: 'resources', what: `${name}: ${before} before, ${after} after the round${allowed}.` };
  });
}
