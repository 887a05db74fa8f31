import { grouped, operationsOf } from './check-operations.ts';
import { type HistoryLine, linesOf } from './history.ts';
import type { Violation } from './promises.ts';

/**
 * A gateway reads its revocations after each notice, after each reconnect to Redis, and every two seconds
 * (docs/architecture.md). The rest is for a busy machine.
 */
export const REVOKED_MS = 4_000;
const MINUTE_MS = 60_000;
/** Faults of processes that take no part in the decision whether a token is valid. */
const UNRELATED = /^(auth|tool-server|agent|model|ag-ui|worker|haproxy)/;

/** Checks that no request that began after the bound of a revocation was served. */
export function checkRevocations(history: readonly HistoryLine[]): Violation[] {
  const served = grouped(linesOf(history, 'served'), ({ session }) => session);
  const revoked = operationsOf(history).filter(({ invoked: { op }, ended }) => op === 'revoke' && ended?.t === 'ok');
  return revoked.flatMap(({ invoked, ended }) => {
    return (served.get(invoked.key) ?? []).flatMap(({ from, at, via, node }): Violation[] => {
      const bound = boundOf(history, ended?.at ?? 0, node);
      if (from <= bound) return [];
      const what = `Session ${invoked.key} was served (${via} of ${node}) ${from - bound} ms after the bound.`;
      return [{ promise: 'revocations', what, at }];
    });
  });
}

/** While a node cannot reach Redis, or stands still, it learns nothing: the bound begins when that is healed. */
function boundOf(history: readonly HistoryLine[], revokedAt: number, node: string): number {
  const healed = new Map(linesOf(history, 'healed').map(({ id, at }) => [id, at]));
  const disturbing = linesOf(history, 'fault').filter(({ kind, target }) => {
    return !UNRELATED.test(kind) && (!kind.startsWith('gateway') || target === node);
  });
  let bound = revokedAt + REVOKED_MS;
  for (const { id, at } of disturbing.toSorted((a, b) => a.at - b.at)) {
    const healedAt = healed.get(id) ?? Number.POSITIVE_INFINITY;
    if (at <= bound && healedAt >= revokedAt) bound = Math.max(bound, healedAt + REVOKED_MS);
  }
  return bound;
}

/**
 * Checks the messages that a user was granted. A window of the limit begins with its first message, so that a minute can
 * contain parts of two. Without Redis the nodes together grant the limit once more (docs/architecture.md).
 */
export function checkMessageLimits(history: readonly HistoryLine[]): Violation[] {
  const hadFault = linesOf(history, 'fault').some(({ kind }) => !UNRELATED.test(kind));
  return linesOf(history, 'messages').flatMap(({ user, perMinute }): Violation[] => {
    const granted = operationsOf(history)
      .filter(({ invoked, ended }) => invoked.op === 'message' && invoked.user === user && ended?.t === 'ok')
      .map(({ invoked, ended }) => ({ from: invoked.at, to: ended?.at ?? 0 }))
      .toSorted((a, b) => a.from - b.from);
    const most = (hadFault ? 3 : 2) * perMinute;
    for (const { from } of granted) {
      const inMinute = granted.filter((message) => message.from >= from && message.to <= from + MINUTE_MS).length;
      if (inMinute <= most) continue;
      const what = `${user} was granted ${inMinute} messages in a minute; the limit is ${perMinute}.`;
      return [{ promise: 'limits', what, at: from }];
    }
    return [];
  });
}

/** Checks that a thread has the question and the answer of each completed run once, and nothing twice of the others. */
export function checkThreads(history: readonly HistoryLine[]): Violation[] {
  return linesOf(history, 'threads').flatMap(({ user, threads, uncertain }) => {
    const events = linesOf(history, 'log').find((log) => log.user === user)?.events ?? [];
    const completed = new Set(events.flatMap(({ type, runId }) => (type === 'agent_completed' ? (runId ?? []) : [])));
    const messages = threads.flatMap((thread) => thread.messages);
    const runIds = new Set([...completed, ...messages.flatMap(({ runId }) => runId ?? [])]);
    return [...runIds].flatMap((runId) => {
      return ['user', 'assistant'].flatMap((role): Violation[] => {
        const times = messages.filter((message) => message.runId === runId && message.role === role).length;
        if (times === 1 || (times === 0 && (!completed.has(runId) || uncertain?.includes(runId)))) return [];
        return [{ promise: 'threads', what: `Run ${runId} of ${user} has ${times} messages of the ${role}.` }];
      });
    });
  });
}
