import {
  type Ended,
  type HistoryLine,
  type Invoked,
  type LoggedEvent,
  linesOf,
  type OperationName,
} from './history.ts';
import type { Violation } from './promises.ts';

const TERMINAL = ['agent_completed', 'agent_failed', 'agent_cancelled'];

/** Operations that start a run, and those that call a tool. */
export const RUNS: readonly OperationName[] = ['run', 'chat', 'ag-ui', 'ask'];
const CALLS: readonly OperationName[] = ['tool', 'mcp'];

export interface Operation {
  readonly invoked: Invoked;
  readonly ended: Ended | undefined;
}

export function operationsOf(history: readonly HistoryLine[]): Operation[] {
  const ends = new Map<number, Ended>();
  for (const line of history) {
    if (line.t === 'ok' || line.t === 'failed' || line.t === 'unknown') ends.set(line.id, line);
  }
  return linesOf(history, 'invoked').map((invoked) => ({ invoked, ended: ends.get(invoked.id) }));
}

export function grouped<T>(items: readonly T[], keyOf: (item: T) => string | undefined): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    if (key === undefined) continue;
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}

export function allEvents(history: readonly HistoryLine[]): LoggedEvent[] {
  return linesOf(history, 'log').flatMap(({ events }) => events);
}

/** Checks accepted runs against the event logs. A run is accepted if a client received that, or if a log names it. */
export function checkRuns(history: readonly HistoryLine[]): Violation[] {
  const violations: Violation[] = [];
  const report = (what: string, at?: number) => violations.push({ promise: 'runs', what, at });
  const events = allEvents(history);
  const byRun = grouped(events, ({ runId }) => runId);
  const operations = operationsOf(history).filter(({ invoked: { op } }) => RUNS.includes(op));
  const keyOfId = new Map(operations.map(({ invoked }) => [invoked.id, invoked.key]));

  const accepted = linesOf(history, 'accepted');
  const acceptedIds = new Set(accepted.map(({ id }) => id));
  const answered = operations.flatMap(({ ended }) => (ended?.t === 'ok' ? (ended.runId ?? []) : []));
  for (const runId of new Set([...accepted.map((line) => line.runId), ...answered, ...byRun.keys()])) {
    const ofRun = byRun.get(runId) ?? [];
    const ends = ofRun.filter(({ type }) => TERMINAL.includes(type));
    if (ends.length !== 1) report(`Run ${runId} has ${ends.length} terminal events.`);
    const last = ofRun.at(-1);
    const [end] = ends;
    if (end && last && last.seq > end.seq) report(`Run ${runId} continues after its terminal event ${end.seq}.`);
    const starts = ofRun.filter(({ type }) => type === 'agent_started');
    if (starts.length > 1) report(`Run ${runId} has started ${starts.length} times.`);
  }

  const requests = grouped(
    [
      ...accepted.map(({ id, runId }) => ({ request: keyOfId.get(id), runId })),
      ...events.flatMap(({ requestId, runId, type }) => {
        return runId !== undefined && type === 'agent_started' ? [{ request: requestId, runId }] : [];
      }),
    ],
    ({ request }) => request,
  );
  for (const [request, of] of requests) {
    const ids = new Set(of.map(({ runId }) => runId));
    if (ids.size > 1) report(`Request ${request} has ${ids.size} runs: ${[...ids].join(', ')}.`);
  }

  for (const { invoked, ended } of operations) {
    // After the acceptance the client can still lose its session; the run continues without it.
    if (ended?.t === 'failed' && requests.has(invoked.key) && !acceptedIds.has(invoked.id)) {
      report(`Request ${invoked.key} was refused with ${ended.code} and has a run.`, ended.at);
    }
    if (ended?.t !== 'ok' || ended.end === undefined) continue;
    // Clients of AG-UI know the request only.
    const runId = ended.runId ?? requests.get(invoked.key)?.[0]?.runId ?? '';
    const end = (byRun.get(runId) ?? []).find(({ type }) => TERMINAL.includes(type));
    if (end?.type !== ended.end) {
      report(`The client of ${invoked.key} received ${ended.end}; the log has ${end?.type ?? 'no end'}.`, ended.at);
    }
  }
  return violations;
}

/** Checks tool calls: the pairs in the logs, and keys against answers and against the tool server's executions. */
export function checkToolCalls(history: readonly HistoryLine[]): Violation[] {
  const violations: Violation[] = [];
  const report = (what: string, at?: number) => violations.push({ promise: 'calls', what, at });
  const logged = allEvents(history);
  const calls = grouped(logged, ({ callId }) => callId);
  for (const [callId, events] of calls) {
    const executing = events.filter(({ type }) => type === 'tool_executing').length;
    const completed = events.filter(({ type }) => type === 'tool_completed').length;
    if (executing !== 1 || completed !== 1) {
      report(`Call ${callId} has ${executing} tool_executing and ${completed} tool_completed.`);
    }
  }

  const executions = grouped(
    linesOf(history, 'executions').flatMap(({ keys }) => keys),
    (key) => key,
  );
  const operations = operationsOf(history).filter(({ invoked: { op } }) => CALLS.includes(op));
  // The call of a run that asks has the key of its request.
  const asked = operationsOf(history).filter(({ invoked: { op } }) => op === 'ask');
  const known = new Set([...operations, ...asked].map(({ invoked }) => invoked.key));
  for (const key of executions.keys()) {
    if (!known.has(key)) report(`The tool server executed ${key}; no client sent it.`);
  }
  for (const [key, ofKey] of grouped(operations, ({ invoked }) => invoked.key)) {
    const times = executions.get(key)?.length ?? 0;
    if (times > 1) report(`Key ${key} was executed ${times} times.`);
    const answers = ofKey.flatMap(({ ended }) => (ended?.t === 'ok' ? [ended] : []));
    const different = new Set(answers.map(({ callId, success }) => `${callId} ${success}`));
    if (different.size > 1) report(`Key ${key} has ${different.size} answers: ${[...different].join(', ')}.`);
    const [answer] = answers;
    if (!answer) continue;
    if (answer.success && times !== 1) report(`Key ${key} succeeded and was executed ${times} times.`, answer.at);
    const end = calls.get(answer.callId ?? '')?.find(({ type }) => type === 'tool_completed');
    if (end?.success !== answer.success) {
      const found = end ? `success: ${end.success}` : 'no such call';
      report(`Key ${key} was answered success: ${answer.success}; the log has ${found}.`, answer.at);
    }
  }
  return violations;
}
