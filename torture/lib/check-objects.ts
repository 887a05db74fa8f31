import { grouped, type Operation, operationsOf } from './check-operations.ts';
import { type HistoryLine, linesOf } from './history.ts';
import { linearize, type Model, type TimedOperation } from './linearizable.ts';
import type { PromiseName, Violation } from './promises.ts';

/** Faults that move no run to another worker. The others can interrupt a call, whose tool is then executed again. */
const NO_TAKEOVER = /^(gateway|auth|keys|haproxy|tool-server|agent)/;
/** A fault that began before a run can interrupt it. */
const LONGEST_FAULT_MS = 60_000;
/** After everything that a client did. */
const AT_THE_END = Number.MAX_SAFE_INTEGER;

function intervalOf({ invoked, ended }: Operation): { readonly invoked: number; readonly returned: number } {
  const isKnown = ended !== undefined && ended.t !== 'unknown';
  return { invoked: invoked.at, returned: isKnown ? ended.at : Number.POSITIVE_INFINITY };
}

function violationsOf<State, Input, Output>(
  history: readonly TimedOperation<Input, Output>[],
  model: Model<State, Input, Output>,
  { promise, object }: { readonly promise: PromiseName; readonly object: string },
): Violation[] {
  const verdict = linearize(history, model);
  if (verdict.outcome === 'linearizable') return [];
  const { stuckAt } = verdict;
  const operation = `${JSON.stringify(stuckAt?.input)} with ${JSON.stringify(stuckAt?.output)}`;
  const what =
    verdict.outcome === 'impossible'
      ? `${object}: no order of its operations explains ${operation}.`
      : `${object}: the search for an order ended without a result at ${operation}.`;
  const returned = stuckAt?.returned ?? AT_THE_END;
  return [{ promise, what, ...(returned < AT_THE_END ? { at: returned } : {}) }];
}

type CapInput = { readonly plan: string } | 'connections';

/** Checks each user's connections: a number that the plan at one moment of the sample allows. */
export function checkCaps(history: readonly HistoryLine[]): Violation[] {
  const samples = grouped(linesOf(history, 'cap'), ({ user }) => user);
  const changes = grouped(
    operationsOf(history).filter(({ invoked: { op }, ended }) => op === 'plan' && ended?.t !== 'failed'),
    ({ invoked }) => invoked.key,
  );
  return linesOf(history, 'caps').flatMap(({ user, plan, caps }) => {
    const operations: TimedOperation<CapInput, number>[] = [
      ...(samples.get(user) ?? []).map(({ from, at, connections }) => {
        return { invoked: from, returned: at, input: 'connections' as const, output: connections };
      }),
      ...(changes.get(user) ?? []).map((operation) => {
        const output = operation.ended?.t === 'ok' ? 0 : undefined;
        return { ...intervalOf(operation), input: { plan: operation.invoked.value ?? '' }, output };
      }),
    ];
    const model: Model<string, CapInput, number> = {
      initial: plan,
      step: (current, input, output = 0) => {
        if (input !== 'connections') return input.plan;
        return output <= (caps[current] ?? 0) ? current : undefined;
      },
      isRead: (input) => input === 'connections',
    };
    return violationsOf(operations, model, { promise: 'caps', object: `The connections of ${user}` });
  });
}

/** Calls that count now, and those of them that will fail and then release the quota. */
interface Quota {
  readonly used: number;
  readonly held: number;
}
type QuotaInput = 'use' | 'hold' | 'release';

/** Checks each user with an allowance: no call above it succeeds, and none is refused below it. */
export function checkQuotas(history: readonly HistoryLine[]): Violation[] {
  const byUser = grouped(
    operationsOf(history).filter(({ invoked: { op } }) => op === 'tool' || op === 'mcp'),
    ({ invoked }) => invoked.user,
  );
  return linesOf(history, 'quota').flatMap(({ user, calls }) => {
    const model: Model<Quota, QuotaInput, 'done' | 'refused'> = {
      initial: { used: 0, held: 0 },
      step: ({ used, held }, input, output) => {
        if (output === 'refused') return used === calls ? { used, held } : undefined;
        if (input === 'release') return held > 0 ? { used: used - 1, held: held - 1 } : undefined;
        if (used === calls) return undefined;
        return { used: used + 1, held: input === 'hold' ? held + 1 : held };
      },
      isRead: (_input, output) => output === 'refused',
    };
    // One operation per key counts: a repetition gets the first outcome.
    const keys = grouped(byUser.get(user) ?? [], ({ invoked }) => invoked.key);
    const operations = [...keys.values()].flatMap(quotaOperations);
    return violationsOf(operations, model, { promise: 'limits', object: `The allowance of ${user}` });
  });
}

function quotaOperations(ofKey: readonly Operation[]): TimedOperation<QuotaInput, 'done' | 'refused'>[] {
  const answered = ofKey.find(({ ended }) => ended?.t === 'ok') ?? ofKey[0];
  if (!answered) return [];
  const { ended } = answered;
  const interval = intervalOf(answered);
  if (ended?.t === 'ok' && ended.success) return [{ ...interval, input: 'use', output: 'done' }];
  if (ended?.t === 'failed') {
    return ended.code === 'QUOTA_EXCEEDED' ? [{ ...interval, input: 'use', output: 'refused' }] : [];
  }
  // An execution that failed counts; a call that failed before its execution counts only for some time.
  const output = ended?.t === 'ok' ? ('done' as const) : undefined;
  return [
    { ...interval, input: 'hold', output },
    { invoked: interval.invoked, returned: Number.POSITIVE_INFINITY, input: 'release', output: undefined },
  ];
}

/** Checks each idempotency key: the first outcome is that of every later call. */
export function checkKeys(history: readonly HistoryLine[]): Violation[] {
  const keys = grouped(
    operationsOf(history).filter(({ invoked: { op } }) => op === 'tool' || op === 'mcp'),
    ({ invoked }) => invoked.key,
  );
  const model: Model<string | null, 'call', string> = {
    initial: null,
    step: (outcome, _input, output) => {
      if (output === 'refused') return outcome === null ? null : undefined;
      return output !== undefined && (outcome === null || outcome === output) ? output : undefined;
    },
    isRead: (_input, output) => output === 'refused',
  };
  return [...keys].flatMap(([key, ofKey]) => {
    const operations = ofKey.flatMap((operation): TimedOperation<'call', string>[] => {
      const { ended } = operation;
      // A call without an answer restricts the others only by what it did, which their answers show.
      if (ended === undefined || ended.t === 'unknown') return [];
      const output = ended.t === 'ok' ? `${ended.callId} ${ended.success}` : 'refused';
      return [{ ...intervalOf(operation), input: 'call', output }];
    });
    return violationsOf(operations, model, { promise: 'calls', object: `Key ${key}` });
  });
}

type AnswerInput = { readonly answer: string } | 'logged';
type AnswerOutput = 'first' | 'repeated' | 'already answered' | { readonly logged: string | null };

/** Checks each input request: one answer wins, is in the log, and every other client gets an error. */
export function checkAnswers(history: readonly HistoryLine[]): Violation[] {
  const events = linesOf(history, 'log').flatMap((log) => log.events);
  const received = grouped(
    events.filter(({ type }) => type === 'input_received'),
    ({ inputId }) => inputId,
  );
  const byInput = grouped(
    operationsOf(history).filter(({ invoked: { op } }) => op === 'answer'),
    ({ invoked }) => invoked.key,
  );
  const model: Model<string | null, AnswerInput, AnswerOutput> = {
    initial: null,
    step: (given, input, output) => {
      if (input === 'logged') return typeof output === 'object' && output.logged === given ? given : undefined;
      if (output === 'first') return given === null ? input.answer : undefined;
      if (output === 'already answered') return given !== null && given !== input.answer ? given : undefined;
      // A client repeats its own answer after a lost connection.
      return given === null || given === input.answer ? input.answer : undefined;
    },
    isRead: (input, output) => input === 'logged' || output === 'already answered',
  };
  const violations = [...byInput].flatMap(([inputId, answers]) => {
    const operations = answers.flatMap((operation): TimedOperation<AnswerInput, AnswerOutput>[] => {
      const { invoked, ended } = operation;
      const input = { answer: invoked.value ?? '' };
      // A client repeats an answer after a lost connection. If the run has ended by then, the refusal says nothing
      // about the first attempt.
      if (ended?.t === 'failed' && ended.code !== 'INPUT_ALREADY_ANSWERED') {
        return [{ invoked: invoked.at, returned: Number.POSITIVE_INFINITY, input, output: undefined }];
      }
      if (ended?.t === 'failed') return [{ ...intervalOf(operation), input, output: 'already answered' }];
      const output = ended?.t === 'ok' ? (ended.repeated ? 'repeated' : 'first') : undefined;
      return [{ ...intervalOf(operation), input, output }];
    });
    const logged = received.get(inputId)?.[0]?.action ?? null;
    const end = { invoked: AT_THE_END, returned: AT_THE_END, input: 'logged' as const, output: { logged } };
    return violationsOf([...operations, end], model, { promise: 'answers', object: `Input request ${inputId}` });
  });
  return [...violations, ...checkApprovals(history, received)];
}

/** Checks that a call is executed after an approval only, and once more at most per takeover of its run. */
function checkApprovals(
  history: readonly HistoryLine[],
  received: ReadonlyMap<string, readonly { readonly runId?: string; readonly action?: string }[]>,
): Violation[] {
  const violations: Violation[] = [];
  const report = (what: string) => violations.push({ promise: 'answers', what });
  const events = linesOf(history, 'log').flatMap((log) => log.events);
  const executions = grouped(
    linesOf(history, 'executions').flatMap(({ keys }) => keys),
    (key) => key,
  );
  const uncertain = new Set(linesOf(history, 'executions').flatMap((line) => line.uncertain ?? []));
  const approved = new Set<string | undefined>();
  for (const [inputId, ofInput] of received) {
    if (ofInput.length > 1) report(`Input request ${inputId} has ${ofInput.length} answers in the log.`);
    for (const { runId, action } of ofInput) if (action === 'accept') approved.add(runId);
  }
  const runs = new Map(events.flatMap(({ requestId, runId }) => (requestId === undefined ? [] : [[requestId, runId]])));
  const takeovers = linesOf(history, 'fault').filter(({ kind }) => !NO_TAKEOVER.test(kind));
  for (const { invoked, ended } of operationsOf(history)) {
    if (invoked.op !== 'ask' || uncertain.has(invoked.key)) continue;
    const { key } = invoked;
    const end = ended?.at ?? AT_THE_END;
    const repetitions = takeovers.filter(({ at }) => at >= invoked.at - LONGEST_FAULT_MS && at <= end).length;
    const runId = runs.get(key);
    const times = executions.get(key)?.length ?? 0;
    const succeeded = events.some((event) => event.runId === runId && event.toolName === 'guarded' && event.success);
    if (times > 0 && !approved.has(runId)) report(`The call of ${key} was executed without an approval.`);
    if (times > 1 + repetitions) report(`The call of ${key} was executed ${times} times.`);
    if (succeeded && times === 0) report(`The call of ${key} succeeded without an execution.`);
  }
  return violations;
}
