import { describe, expect, it } from '@jest/globals';
import { check } from '../../torture/lib/checker.ts';
import type { BilledRecord, HistoryLine, LoggedEvent } from '../../torture/lib/history.ts';
import { PROMISES, type PromiseName } from '../../torture/lib/promises.ts';

type Kind = HistoryLine['t'];
type Of<T extends Kind> = Extract<HistoryLine, { readonly t: T }>;
/** Changes the lines of one kind; undefined removes a line. */
type Change = (history: HistoryLine[]) => HistoryLine[];

const event = (seq: number, type: string, more: Partial<LoggedEvent> = {}): LoggedEvent => {
  return { seq, type, eventId: `evt_${seq}`, user: 'ann', ...more };
};
const RUN = { runId: 'run_1', requestId: 'req_1' };
const EVENTS: readonly LoggedEvent[] = [
  event(1, 'agent_started', RUN),
  event(2, 'tool_executing', { ...RUN, callId: 'call_1' }),
  event(3, 'tool_completed', { ...RUN, callId: 'call_1', success: true, recordId: 'usage_1' }),
  event(4, 'agent_completed', RUN),
  event(5, 'tool_executing', { callId: 'call_2' }),
  event(6, 'tool_completed', { callId: 'call_2', success: true, recordId: 'usage_2' }),
];

function record(sequence: number, more: Partial<BilledRecord> = {}): BilledRecord {
  const base = { id: `usage_${sequence}`, sequence, user: 'ann', tool: 'add', status: 'success', units: 2 };
  return { ...base, period: '2026-11-30T20', runId: null, key: null, ...more };
}

/** A round with one run and one tool call in which every promise is kept. */
function goodHistory(): HistoryLine[] {
  const client = { user: 'ann', client: 'ann-ws' };
  return [
    { t: 'opened', at: 1, connection: 'c1', user: 'ann', after: 0, epoch: 'e1' },
    { t: 'invoked', at: 2, id: 1, op: 'run', key: 'req_1', ...client },
    { t: 'accepted', at: 3, id: 1, runId: 'run_1' },
    ...EVENTS.map((logged): Of<'event'> => {
      const { seq, eventId, user } = logged;
      return { t: 'event', at: 3 + seq, connection: 'c1', user: 'ann', seq, eventId, eventUser: user };
    }),
    { t: 'ok', at: 10, id: 1, runId: 'run_1', end: 'agent_completed' },
    { t: 'invoked', at: 11, id: 2, op: 'tool', key: 'key_1', ...client },
    { t: 'ok', at: 12, id: 2, callId: 'call_2', success: true },
    { t: 'cap', at: 13, from: 12, user: 'ann', connections: 3 },
    { t: 'caps', user: 'ann', plan: 'pro', caps: { pro: 3 } },
    { t: 'log', user: 'ann', epoch: 'e1', events: EVENTS },
    { t: 'usage', user: 'ann', units: 4, period: '2026-11' },
    {
      t: 'ledger',
      records: [record(1, { runId: 'run_1' }), record(2, { key: 'key_1' })],
      verified: { ok: true, checked: 2, problem: null },
    },
    { t: 'executions', keys: ['key_1'] },
    { t: 'resource', name: 'connections', before: 0, after: 0 },
    { t: 'finished', users: ['ann'] },
  ];
}

function each<T extends Kind>(kind: T, change: (line: Of<T>) => HistoryLine | readonly HistoryLine[]): Change {
  return (history) => history.flatMap((line) => (line.t === kind ? change(line as Of<T>) : line));
}

const refusedRun = each('ok', (line) => {
  return line.id === 1 ? { t: 'failed', at: 10, id: 1, code: 'OVERLOADED' } : line;
});

const without = (matches: (line: HistoryLine) => boolean): Change => {
  return (history) => history.filter((line) => !matches(line));
};

/** Changes the event log and the deliveries of it. */
function events(change: (logged: readonly LoggedEvent[]) => readonly LoggedEvent[]): Change {
  return (history) => {
    const lines = each('log', (line) => ({ ...line, events: change(line.events) }))(history);
    return lines.filter(({ t }) => t !== 'event').concat({ ...deliveryOf(1), t: 'event' });
  };
}

function deliveryOf(seq: number): Of<'event'> {
  return { t: 'event', at: 4, connection: 'c1', user: 'ann', seq, eventId: `evt_${seq}`, eventUser: 'ann' };
}

const records = (change: (all: Of<'ledger'>['records']) => Of<'ledger'>['records']): Change => {
  return each('ledger', (line) => ({ ...line, records: change(line.records) }));
};

const changeAt =
  <T>() =>
  (index: number, more: Partial<T>) =>
  (all: readonly T[]): T[] =>
    all.map((item, at) => (at === index ? { ...item, ...more } : item));
const eventAt = changeAt<LoggedEvent>();
const recordAt = changeAt<BilledRecord>();

/** Adds lines before the last one. */
const adding = (...lines: readonly HistoryLine[]): Change => each('finished', (line) => [...lines, line]);
/** An operation from its begin to its end. */
const operation = (
  [id, from, to]: readonly [id: number, from: number, to: number],
  [op, key, value]: readonly [op: Of<'invoked'>['op'], key: string, value?: string],
  end: Partial<Omit<Of<'ok'>, 't'>> & { readonly t: 'ok' | 'failed' | 'unknown' },
): HistoryLine[] => [
  { t: 'invoked', at: from, id, op, key, value, user: 'ann', client: 'ann-ws' },
  { ...end, at: to, id } as HistoryLine,
];
const sample = (from: number, at: number, connections: number): HistoryLine => {
  return { t: 'cap', from, at, user: 'ann', connections };
};
const planOf = (id: number, from: number, to: number, plan: string) =>
  operation([id, from, to], ['plan', 'ann', plan], { t: 'ok' });
const TWO_PLANS: HistoryLine = { t: 'caps', user: 'ann', plan: 'small', caps: { small: 3, large: 5 } };
/** Calls whose keys, call ids and log entries are of no interest here. */
const calls = (...ends: readonly (readonly [from: number, to: number, code?: string])[]): HistoryLine[] =>
  ends.flatMap(([from, to, code], at) => {
    const end =
      code === undefined ? { t: 'ok' as const, callId: `c${at}`, success: true } : { t: 'failed' as const, code };
    return operation([50 + at, from, to], ['tool', `q${at}`], end);
  });
const quota = (allowed: number): HistoryLine => ({ t: 'quota', user: 'ann', calls: allowed });
const messages = (count: number, everyMs: number): HistoryLine[] => [
  { t: 'messages', user: 'ann', perMinute: 2 },
  ...Array.from({ length: count }, (_, at) => {
    return operation([100 + at, at * everyMs, at * everyMs + 1], ['message', `m${at}`], { t: 'ok' });
  }).flat(),
];
const revoked = (end: 'ok' | 'unknown' = 'ok') => operation([3, 100, 200], ['revoke', 's1'], { t: end });
const served = (from: number, node = 'gateway-1'): HistoryLine => {
  return { t: 'served', session: 's1', from, at: from + 5, via: 'connection', node };
};
const fault = (kind: string, target: string, from: number, to: number): HistoryLine[] => [
  { t: 'fault', id: 1, at: from, kind, target },
  { t: 'healed', id: 1, at: to },
];
/** A run that asks, and whose request is answered twice: the first answer wins. */
const ASKED: readonly LoggedEvent[] = [
  ...EVENTS,
  event(7, 'agent_started', { runId: 'run_3', requestId: 'ask_1' }),
  event(8, 'tool_executing', { runId: 'run_3', callId: 'call_3', toolName: 'guarded' }),
  event(9, 'input_requested', { runId: 'run_3', inputId: 'in_1' }),
  event(10, 'input_received', { runId: 'run_3', inputId: 'in_1', action: 'accept' }),
  event(11, 'tool_completed', { runId: 'run_3', callId: 'call_3', toolName: 'guarded', success: true, recordId: 'u3' }),
  event(12, 'agent_completed', { runId: 'run_3' }),
];
const answer = (id: number, action: string, end: Parameters<typeof operation>[2]) =>
  operation([id, 20 + id, 40 + id], ['answer', 'in_1', action], end);
const FIRST = { t: 'ok', repeated: false } as const;
const LATE = { t: 'failed', code: 'INPUT_ALREADY_ANSWERED' } as const;
const asked =
  (
    answers: readonly HistoryLine[] = [answer(6, 'accept', FIRST), answer(7, 'decline', LATE)].flat(),
    executed: readonly string[] = ['ask_1'],
    changed: readonly LoggedEvent[] = ASKED,
  ): Change =>
  (history) => {
    const extra = [
      ...operation([5, 20, 60], ['ask', 'ask_1'], { t: 'ok', runId: 'run_3', end: 'agent_completed' }),
      ...answers,
    ];
    const all = adding(...extra)(events(() => changed)(history));
    return each('executions', (line) => ({ ...line, keys: [...line.keys, ...executed] }))(
      records((own) => [...own, record(3, { id: 'u3', runId: 'run_3', units: 0 })])(
        each('ledger', (line) => ({ ...line, verified: { ...line.verified, checked: 3 } }))(all),
      ),
    );
  };
const thread = (...roles: readonly string[]): HistoryLine => {
  return {
    t: 'threads',
    user: 'ann',
    threads: [{ id: 't', messages: roles.map((role) => ({ role, runId: 'run_1' })) }],
  };
};

const BAD: readonly (readonly [what: string, promise: PromiseName, change: Change, text: RegExp])[] = [
  ['an event twice on a connection', 'delivery', each('event', (line) => [line, line]), /arrived again/],
  ['a missing event', 'delivery', without((line) => line.t === 'event' && line.seq === 3), /3 to 3 .*are missing/],
  ['a missing first event', 'delivery', without((line) => line.t === 'event' && line.seq === 1), /1 to 1 .*missing/],
  [
    'two events in the wrong order',
    'delivery',
    each('event', (line) => (line.seq === 2 ? [deliveryOf(3), deliveryOf(2)] : line.seq === 3 ? [] : line)),
    /missing/,
  ],
  [
    "another user's event",
    'delivery',
    each('event', (line) => (line.seq === 2 ? { ...line, eventUser: 'bob' } : line)),
    /of bob/,
  ],
  [
    'an event that the log does not have',
    'delivery',
    each('event', (line) => (line.seq === 6 ? { ...line, eventId: 'evt_x' } : line)),
    /arrived as evt_x/,
  ],
  [
    'a connection that cannot resume',
    'delivery',
    each('finished', (line) => [{ t: 'lost', at: 9, connection: 'c1', user: 'ann', reason: 'epoch_changed' }, line]),
    /cannot resume: epoch_changed/,
  ],
  ['an event before the welcome', 'delivery', without((line) => line.t === 'opened'), /has not opened/],
  ['a hole in a log', 'log', events(eventAt(5, { seq: 7 })), /event 7 in position 6/],
  ["another user's event in a log", 'log', events(eventAt(1, { user: 'bob' })), /belongs to bob/],
  ['the same event twice in a log', 'log', events(eventAt(5, { eventId: 'evt_5' })), /evt_5 is in the logs/],
  ['a run without a terminal event', 'runs', events(eventAt(3, { type: 'agent_thinking' })), /has 0 terminal/],
  ['a run with two terminal events', 'runs', events(eventAt(4, { ...RUN, type: 'agent_failed' })), /has 2 terminal/],
  ['an event after the terminal one', 'runs', events(eventAt(4, { ...RUN })), /continues after/],
  [
    'an answered chat whose run no log has',
    'runs',
    each('finished', (line) => [
      { t: 'invoked', at: 20, id: 3, op: 'chat', key: 'chat_1', user: 'ann', client: 'ann-chat' },
      { t: 'ok', at: 21, id: 3, runId: 'run_y' },
      line,
    ]),
    /run_y has 0/,
  ],
  ['an accepted run that no log has', 'runs', each('accepted', (line) => ({ ...line, runId: 'run_x' })), /run_x has 0/],
  [
    'two runs for one request id',
    'runs',
    events((all) => [...all, event(7, 'agent_started', { ...RUN, runId: 'run_2' })]),
    /req_1 has 2 runs/,
  ],
  [
    'a refused request that has a run',
    'runs',
    (history) => each('accepted', () => [])(refusedRun(history)),
    /refused with OVERLOADED/,
  ],
  [
    'another end at the client than in the log',
    'runs',
    each('ok', (line) => (line.id === 1 ? { ...line, end: 'agent_failed' } : line)),
    /received agent_failed/,
  ],
  ['a call without an end', 'calls', events((all) => all.slice(0, 5)), /call_2 has 1 tool_executing and 0/],
  [
    'a call with two ends',
    'calls',
    events((all) => [...all, event(7, 'tool_completed', { callId: 'call_2' })]),
    /and 2/,
  ],
  ['a key executed twice', 'calls', each('executions', (line) => ({ ...line, keys: ['key_1', 'key_1'] })), /2 times/],
  ['a success that was not executed', 'calls', each('executions', (line) => ({ ...line, keys: [] })), /0 times/],
  [
    'an execution that no client requested',
    'calls',
    each('executions', (line) => ({ ...line, keys: ['key_1', 'key_9'] })),
    /key_9; no client/,
  ],
  [
    'two answers for one key',
    'calls',
    each('finished', (line) => [
      { t: 'invoked', at: 20, id: 3, op: 'tool', key: 'key_1', user: 'ann', client: 'ann-sse' },
      { t: 'ok', at: 21, id: 3, callId: 'call_1', success: true },
      line,
    ]),
    /2 answers/,
  ],
  [
    'another outcome at the client than in the log',
    'calls',
    each('ok', (line) => (line.id === 2 ? { ...line, success: false } : line)),
    /the log has success: true/,
  ],
  ['a record that no event names', 'ledger', records((all) => [...all, record(3, { units: 0 })]), /No event names/],
  ['a record that the ledger lacks', 'ledger', records((all) => all.slice(0, 1)), /usage_2, which the ledger lacks/],
  ['a hole in the ledger', 'ledger', records(recordAt(1, { sequence: 3 })), /sequence 3 in position 2/],
  ['a record twice', 'ledger', records((all) => [...all, { ...record(2), sequence: 3 }]), /twice/],
  ['a key charged twice', 'ledger', records(recordAt(0, { key: 'key_1' })), /key_1 is charged by/],
  ["a charge on another user's account", 'ledger', records(recordAt(1, { user: 'bob' })), /usage_2 of bob/],
  ['a failed record of a successful call', 'ledger', records(recordAt(1, { status: 'error' })), /usage_2 is error/],
  ['a record named by two events', 'ledger', events(eventAt(2, { recordId: 'usage_2' })), /Several events/],
  ['a success without a record', 'ledger', events(eventAt(5, { recordId: undefined })), /without a record/],
  [
    'another sum than the ledger',
    'ledger',
    each('usage', (line) => ({ ...line, units: 5 })),
    /5 units; the ledger has 4/,
  ],
  [
    'a ledger that verify refuses',
    'ledger',
    each('ledger', (line) => ({ ...line, verified: { ok: false, checked: 2, problem: { kind: 'chain' } } })),
    /verify answered/,
  ],
  [
    'records that verify did not read',
    'ledger',
    each('ledger', (line) => ({ ...line, verified: { ...line.verified, checked: 1 } })),
    /checked 1 of 2/,
  ],
  [
    'more connections than the cap',
    'caps',
    each('cap', (line) => ({ ...line, connections: 4 })),
    /connections of ann.* with 4/,
  ],
  [
    'more connections than the new plan allows, after its change',
    'caps',
    (history) =>
      each(
        'caps',
        () => TWO_PLANS,
      )(adding(...planOf(3, 20, 21, 'large'), ...planOf(4, 30, 31, 'small'), sample(32, 33, 4))(history)),
    /connections of ann.* with 4/,
  ],
  [
    'more connections than the old plan allows, before a change that failed',
    'caps',
    (history) =>
      each(
        'caps',
        () => TWO_PLANS,
      )(
        adding(
          ...operation([3, 20, 21], ['plan', 'ann', 'large'], { t: 'failed', code: '404' }),
          sample(32, 33, 4),
        )(history),
      ),
    /connections of ann.* with 4/,
  ],
  ['a call above the allowance', 'limits', adding(quota(2), ...calls([20, 21], [22, 23])), /allowance of ann/],
  [
    'a call that is refused below the allowance',
    'limits',
    adding(quota(3), ...calls([20, 21], [22, 23, 'QUOTA_EXCEEDED'])),
    /allowance of ann.*refused/,
  ],
  ['more messages in a minute than two windows allow', 'limits', adding(...messages(5, 1_000)), /granted 5 messages/],
  [
    'more messages in a minute than windows and nodes without Redis allow',
    'limits',
    adding(...messages(7, 1_000), ...fault('redis-cut', 'redis', 0, 9)),
    /granted 7 messages/,
  ],
  [
    'a served request after the bound of a revocation',
    'revocations',
    adding(...revoked(), served(4_250)),
    /50 ms after/,
  ],
  [
    'a served request after the bound, while another node stands still',
    'revocations',
    adding(...revoked(), served(4_250), ...fault('gateway-pause', 'gateway-2', 0, 9_000)),
    /50 ms after/,
  ],
  [
    'a served request after the bound that begins with the healing of Redis',
    'revocations',
    adding(...revoked(), served(9_500), ...fault('redis-cut', 'redis', 150, 5_000)),
    /500 ms after/,
  ],
  [
    'two answers that both win',
    'answers',
    asked([...answer(6, 'accept', FIRST), ...answer(7, 'decline', FIRST)]),
    /in_1/,
  ],
  [
    'an answer that is late although none came before',
    'answers',
    asked([...answer(6, 'accept', LATE), ...answer(7, 'accept', LATE)]),
    /in_1: no order/,
  ],
  [
    'a log with another answer than the one that won',
    'answers',
    asked([...answer(6, 'decline', FIRST), ...answer(7, 'accept', LATE)]),
    /in_1: no order.*accept/,
  ],
  [
    'an answer that won and is not in the log',
    'answers',
    asked(
      answer(6, 'accept', FIRST),
      [],
      ASKED.filter(({ type }) => type !== 'input_received').map((one, at) => ({ ...one, seq: at + 1 })),
    ),
    /in_1: no order/,
  ],
  ['an approved call that is executed twice', 'answers', asked(undefined, ['ask_1', 'ask_1']), /ask_1 was executed 2/],
  ['an approved call that succeeded without an execution', 'answers', asked(undefined, []), /without an execution/],
  [
    'a call that is executed although its user declined',
    'answers',
    asked(answer(6, 'decline', FIRST), ['ask_1'], eventAt(9, { action: 'decline' })(ASKED)),
    /without an approval/,
  ],
  [
    'two answers of one input request in the log',
    'answers',
    asked(undefined, undefined, [...ASKED, event(13, 'input_received', { inputId: 'in_1', action: 'accept' })]),
    /2 answers in the log/,
  ],
  ['a thread without the answer of a completed run', 'threads', adding(thread('user')), /0 messages of the assistant/],
  ['a thread with a message twice', 'threads', adding(thread('user', 'user', 'assistant')), /2 messages of the user/],
  [
    'a key that is refused after it was answered',
    'calls',
    adding(...operation([3, 30, 31], ['tool', 'key_1'], { t: 'failed', code: 'PERMISSION_DENIED' })),
    /Key key_1: no order.*refused/,
  ],
  [
    'another end at a client of AG-UI than in the log',
    'runs',
    adding(...operation([3, 30, 31], ['ag-ui', 'req_1'], { t: 'ok', end: 'agent_failed' })),
    /req_1 received agent_failed/,
  ],
  [
    'more descriptors than before and the slack',
    'resources',
    each('resource', (line) => ({ ...line, name: 'descriptors', after: 11, slack: 10 })),
    /11 after.*10 more/,
  ],
  ['a user without a cap', 'evidence', without(({ t }) => t === 'caps'), /the cap of ann/],
  ['a resource that stays in use', 'resources', each('resource', (line) => ({ ...line, after: 1 })), /1 after/],
  [
    'a process that crashed',
    'processes',
    each('finished', (line) => [{ t: 'process', what: 'gateway-1' }, line]),
    /gateway/,
  ],
  ['no last line', 'evidence', without(({ t }) => t === 'finished'), /the last line/],
  ['a user without a log', 'evidence', each('finished', (line) => ({ ...line, users: ['ann', 'bob'] })), /log of bob/],
  ['no ledger', 'evidence', without(({ t }) => t === 'ledger'), /"ledger"/],
  ['no executions', 'evidence', without(({ t }) => t === 'executions'), /"executions"/],
  ['no measured resources', 'evidence', without(({ t }) => t === 'resource'), /"resource"/],
  ['no sampled caps', 'evidence', without(({ t }) => t === 'cap'), /"cap"/],
  ['an operation without an end', 'evidence', without((line) => line.t === 'ok' && line.id === 2), /operation 2/],
];

describe('the checker of npm run torture', () => {
  it('finds nothing in a history in which every promise is kept', () => {
    expect(check(goodHistory())).toEqual([]);
  });

  it.each(BAD)('finds %s', (_what, promise, change, text) => {
    expect(check(change(goodHistory()))).toContainEqual(
      expect.objectContaining({ promise, what: expect.stringMatching(text) }),
    );
  });

  it('has a bad history for every promise', () => {
    expect([...new Set(BAD.map(([, promise]) => promise))].toSorted()).toEqual(Object.keys(PROMISES).toSorted());
  });

  it('accepts an operation whose outcome the client does not know, whether it took effect or not', () => {
    const unknown = each('ok', ({ at, id }) => ({ t: 'unknown', at, id, code: 'REQUEST_TIMEOUT' }));
    const kept: HistoryLine = { t: 'ok', at: 30, id: 9 };
    const withUsage: Change = (history) => [
      { t: 'invoked', at: 29, id: 9, op: 'usage', key: 'u', user: 'ann', client: 'ann-ws' },
      kept,
      ...history,
    ];
    expect(check(withUsage(unknown(goodHistory())))).toEqual([]);
  });

  it.each<readonly [string, Change]>([
    [
      'a sample during a change of the plan',
      (history) => each('caps', () => TWO_PLANS)(adding(...planOf(3, 20, 40, 'large'), sample(30, 31, 5))(history)),
    ],
    [
      'a change of the plan whose answer was lost, and that took effect later',
      (history) =>
        each(
          'caps',
          () => TWO_PLANS,
        )(
          adding(
            ...operation([3, 20, 21], ['plan', 'ann', 'large'], { t: 'unknown' }),
            sample(22, 23, 3),
            sample(30, 31, 5),
          )(history),
        ),
    ],
    ['a client that lost its session after its run was accepted', refusedRun],
    ['a refusal above the allowance', adding(quota(2), ...calls([20, 21], [22, 23, 'QUOTA_EXCEEDED']))],
    ['as many messages as two windows allow', adding(...messages(4, 1_000))],
    ['a served request before the bound', adding(...revoked(), served(4_200))],
    ['a served request after a revocation without an answer', adding(...revoked('unknown'), served(99_000))],
    [
      'a served request of a node that stood still',
      adding(...revoked(), served(9_900), ...fault('gateway-pause', 'gateway-1', 150, 8_000)),
    ],
    ['an answer that wins before another one', asked()],
    [
      'an approved call that a takeover repeats',
      (history) => adding(...fault('worker-kill', 'worker-1', 21, 30))(asked(undefined, ['ask_1', 'ask_1'])(history)),
    ],
    [
      'an answer whose repetition was refused after the end of its run',
      asked(answer(6, 'accept', { t: 'failed', code: 'INPUT_NOT_FOUND' })),
    ],
    [
      'the same answer twice',
      asked([...answer(6, 'accept', FIRST), ...answer(7, 'accept', { t: 'ok', repeated: true })]),
    ],
    ['a thread with question and answer', adding(thread('assistant', 'user'))],
  ])('accepts %s', (_what, change) => {
    const found = check(change(goodHistory())).filter(({ promise }) => {
      return ['runs', 'caps', 'limits', 'revocations', 'answers', 'threads', 'ledger'].includes(promise);
    });
    expect(found).toEqual([]);
  });

  it.each(['agent_failed', 'agent_cancelled'])('reports an open call of a run that ended with %s', (type) => {
    const brokenOff = events((all) => eventAt(3, { type })(all).filter(({ seq }) => seq !== 3));
    const found = check(brokenOff(goodHistory())).filter(({ promise }) => promise === 'calls');
    expect(found.map(({ what }) => what)).toEqual(['Call call_1 has 1 tool_executing and 0 tool_completed.']);
  });

  it('accepts that Redis has lost a run whose worker was killed before it restored the run, and no other', () => {
    const isLost = events((all) => all.filter(({ runId }) => runId === undefined));
    const renumbered = each('log', (line) => ({
      ...line,
      epoch: 'e2',
      events: line.events.map((logged, at) => ({ ...logged, seq: at + 1 })),
    }));
    const found = (...kinds: string[]) => {
      const faults = kinds.flatMap((kind, at) => fault(kind, 'it', 20 + at, 30 + at));
      return check(adding(...faults)(renumbered(isLost(goodHistory())))).map(({ promise }) => promise);
    };
    expect(found('redis-empty', 'worker-kill')).toEqual([]);
    expect(found('redis-empty')).toEqual(['runs']);
    expect(found('worker-kill')).toContain('runs');
  });

  it('does not compare deliveries of an earlier epoch with the log of the current one', () => {
    const renewed = each('log', (line) => ({ ...line, epoch: 'e2' }));
    const other = each('event', (line) => ({ ...line, eventId: `old_${line.seq}` }));
    expect(check(other(renewed(goodHistory())))).toEqual([]);
  });
});
