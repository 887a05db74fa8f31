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
    { t: 'cap', at: 13, user: 'ann', connections: 3, cap: 3 },
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
    each('ok', (line) => (line.id === 1 ? { t: 'failed', at: 10, id: 1, code: 'OVERLOADED' } : line)),
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
  ['more connections than the cap', 'caps', each('cap', (line) => ({ ...line, connections: 4 })), /the cap is 3/],
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

  it.each(['agent_failed', 'agent_cancelled'])('reports an open call of a run that ended with %s', (type) => {
    const brokenOff = events((all) => eventAt(3, { type })(all).filter(({ seq }) => seq !== 3));
    const found = check(brokenOff(goodHistory())).filter(({ promise }) => promise === 'calls');
    expect(found.map(({ what }) => what)).toEqual(['Call call_1 has 1 tool_executing and 0 tool_completed.']);
  });

  it('does not compare deliveries of an earlier epoch with the log of the current one', () => {
    const renewed = each('log', (line) => ({ ...line, epoch: 'e2' }));
    const other = each('event', (line) => ({ ...line, eventId: `old_${line.seq}` }));
    expect(check(other(renewed(goodHistory())))).toEqual([]);
  });
});
