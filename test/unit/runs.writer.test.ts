import { describe, expect, it } from '@jest/globals';
import type { Append, AppendResult, NewEvent, Reserved } from '../../src/events/append.ts';
import { RedisUnavailable } from '../../src/redis/errors.ts';
import type { OpenCall } from '../../src/runs/open-calls.ts';
import { serialized } from '../../src/runs/run-append.ts';
import type { Restored } from '../../src/runs/run-claims.ts';
import { RunWriter } from '../../src/runs/run-writer.ts';
import { type ClaimedRun, parseRun } from '../../src/runs/stored-run.ts';
import { OUTAGE_RETRY_MS } from '../../src/tools/outcome.ts';
import { ManualClock } from '../support/manual-clock.ts';

const TOKEN = 100;

function claimedRun(changes: Partial<ClaimedRun> = {}): ClaimedRun {
  const stored = { caller: '{"plan":"pro"}', epoch: String(TOKEN), accepted_at: '1000', events: '0' };
  const fields = Object.entries(stored).flat();
  const run = parseRun({ userId: 'user_1', runId: 'run_1', fields, step: 7, now: 1_000, pausedMs: 0 });
  return { ...run, ...changes };
}

function event(text: string, more: Partial<NewEvent> = {}): NewEvent {
  return serialized({ type: 'agent_thinking', fields: { thought: text, timestamp: 'then' }, ...more });
}

const textOf = ({ fields }: NewEvent) => fields.thought;
const journal = { field: 'tool:call_1', value: 'result' };

/** A writer whose Redis is the test: the replies of scripts are taken from lists, and are successes when these end. */
function start(run = claimedRun()) {
  const clock = new ManualClock();
  const appends: Append[] = [];
  const calls: unknown[][] = [];
  const notes: string[] = [];
  const replies = {
    append: [] as (AppendResult | Error)[],
    restore: [] as (Restored | Error)[],
    journal: [] as ('stored' | 'fenced' | 'behind' | Error)[],
    suspend: [] as ('waiting' | 'answered' | 'fenced' | 'behind' | Error)[],
    openCalls: [] as (OpenCall[] | Error)[],
  };
  const reply = async <T>(of: (T | Error)[], success: T): Promise<T> => {
    const next = of.shift() ?? success;
    if (next instanceof Error) throw next;
    return next;
  };
  const done: AppendResult = { outcome: 'appended', seq: 1, cancelRequested: false };
  const log = {
    append: (append: Append) => {
      appends.push(append);
      return reply(replies.append, done);
    },
  };
  const claims = {
    restore: (_run: unknown, elapsedMs: number) => {
      calls.push(['restore', elapsedMs]);
      return reply<Restored>(replies.restore, { outcome: 'claimed', events: 0 });
    },
    journal: (_run: unknown, token: number, entry: { field: string }) => {
      calls.push(['journal', token, entry.field, appends.length]);
      return reply(replies.journal, 'stored');
    },
    suspend: (_run: unknown, wait: { fencingToken: number }) => {
      calls.push(['suspend', wait.fencingToken]);
      return reply(replies.suspend, 'waiting');
    },
    openCalls: async () => {
      calls.push(['openCalls']);
      return reply<OpenCall[]>(replies.openCalls, []);
    },
  };
  const deps = { log, clock, claims, onRestored: () => void notes.push('restored') };
  const writer = new RunWriter(deps, run, () => void notes.push('cancel'));
  const add = (...texts: string[]) => Promise.all(texts.map((text) => writer.add(event(text), {})));
  /** Appended texts with the position of the first one, per append. */
  const written = () => appends.map(({ run: at, events }) => [at?.eventsInLog, ...events.map(textOf)]);
  return { clock, writer, appends, calls, notes, replies, add, written };
}

const outage = () => new RedisUnavailable();
const wait = { expiresMs: 1, remainingMs: 1, inputs: [] };

/** Lets everything happen that waits for no time. */
async function turns(): Promise<void> {
  for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe('the writer of a run', () => {
  it('joins the events of one turn to an append, and those that arrive meanwhile to the next', async () => {
    const { writer, add, written, appends } = start();
    const first = add('a', 'b');
    expect(writer.pending).toBe(2);
    await turns();
    await Promise.all([first, add('c')]);
    await writer.settled();
    expect(written()).toEqual([
      [0, 'a', 'b'],
      [2, 'c'],
    ]);
    expect(appends[0]).toMatchObject({ userId: 'user_1', run: { runId: 'run_1', fencingToken: TOKEN } });
    expect(writer.pending).toBe(0);
  });

  it('counts the events of earlier workers, and the bytes of its own', async () => {
    const { writer, add, written } = start(claimedRun({ events: 5 }));
    await add('a');
    await add('b');
    expect(written()).toEqual([
      [5, 'a'],
      [6, 'b'],
    ]);
    expect(writer.size).toBe(2 * JSON.stringify(event('a').fields).length);
  });

  it('returns the decision on a reservation, and reports that cancellation was requested', async () => {
    const { writer, replies, notes } = start();
    const reserved: Reserved = { allowed: false, reply: [1, 2] };
    replies.append.push({ outcome: 'appended', seq: 1, cancelRequested: true, reserved });
    expect(await writer.add(event('a'), { reserve: 'r' })).toEqual(reserved);
    expect(await writer.add(event('b'), {})).toBeUndefined();
    expect(notes).toEqual(['cancel']);
  });

  it('measures from the acceptance, without the time that the run waited for input', () => {
    const { writer, clock } = start(claimedRun({ waitedMs: 300 }));
    clock.advance(50);
    expect(writer.elapsedMs).toBe(350);
  });

  it('appends nothing after the terminal event', async () => {
    const { writer, add, appends } = start();
    await writer.add(event('end', { type: 'agent_completed' }), {});
    await expect(add('late')).rejects.toThrow('finished');
    expect(appends).toHaveLength(1);
    expect(appends[0]).toMatchObject({ ends: 'agent_completed', hasNoJournal: true });
  });

  it.each<[string, Partial<ClaimedRun>, Partial<NewEvent>, boolean]>([
    ['no journal', {}, {}, true],
    ['an entry of its own', {}, { journal }, false],
    ['results of tool calls', { journal: new Map([['call_1', '{}']]) }, {}, false],
    ['model steps', { steps: new Map([['1', '{}']]) }, {}, false],
    ['input requests', { inputs: new Map([['1', '{}']]) }, {}, false],
  ])('lets the end remove the journal, unless there is none: %s', async (_what, run, more, hasNone) => {
    const { writer, appends } = start(claimedRun(run));
    await writer.add(event('a', more), {});
    await writer.add(event('end', { type: 'agent_completed' }), {});
    expect(appends[1]?.hasNoJournal ?? false).toBe(hasNone);
  });
});

describe('a writer that lost its run', () => {
  it('rejects the events that were emitted behind the ones that failed', async () => {
    const { writer, replies, appends } = start();
    replies.append.push({ outcome: 'fenced' });
    const first = writer.add(event('a', { type: 'agent_completed' }), {});
    const second = writer.add(event('b'), {});
    const results = await Promise.allSettled([first, second]);
    expect(results.map((result) => String('reason' in result && result.reason.message))).toEqual([
      'the run was fenced',
      'the run was fenced',
    ]);
    expect(appends).toHaveLength(1);
  });

  it('forgets events that Redis refuses, so that the end of the run can be written', async () => {
    const { writer, add, replies, written } = start();
    replies.append.push(new Error('WRONGTYPE'));
    await expect(add('a')).rejects.toThrow('WRONGTYPE');
    await writer.add(event('end', { type: 'agent_failed' }), {});
    expect(written()).toEqual([
      [0, 'a'],
      [0, 'end'],
    ]);
  });
});

describe('an outage of Redis', () => {
  it('repeats the same append until it is confirmed, and later events wait for it', async () => {
    const { add, replies, written, clock } = start();
    replies.append.push(outage(), outage(), { outcome: 'repeated', seq: 1, cancelRequested: false });
    const first = add('a', 'b');
    await turns();
    const second = add('c');
    for (let i = 0; i < 4; i++) {
      clock.advance(OUTAGE_RETRY_MS / 8);
      await turns();
    }
    await Promise.all([first, second]);
    expect(written()).toEqual([
      [0, 'a', 'b'],
      [0, 'a', 'b'],
      [0, 'a', 'b'],
      [2, 'c'],
    ]);
  });

  it('that outlasts the retries keeps the event in front of the next one', async () => {
    const { add, replies, written, clock } = start();
    replies.append.push(outage());
    const first = add('a').catch((error: unknown) => error);
    await turns();
    clock.advance(OUTAGE_RETRY_MS);
    expect(await first).toBeInstanceOf(RedisUnavailable);
    await add('b');
    expect(written()).toEqual([
      [0, 'a'],
      [0, 'a'],
      [1, 'b'],
    ]);
  });
});

describe('a Redis that lost acknowledged writes', () => {
  it('gets the missing events again, with a new token and time, and the run continues', async () => {
    const { add, replies, written, calls, notes, appends, clock } = start(claimedRun({ waitedMs: 10 }));
    await add('a');
    await add('b');
    replies.append.push({ outcome: 'behind' });
    replies.restore.push({ outcome: 'claimed', events: 1 });
    clock.advance(20);
    await add('c');
    expect(written().slice(2)).toEqual([
      [2, 'c'],
      [1, 'b'],
      [2, 'c'],
    ]);
    expect(calls).toEqual([['restore', 30]]);
    expect(notes).toEqual(['restored']);
    const [, , , again] = appends;
    const timestamp = new Date(clock.now()).toISOString();
    expect(again).toMatchObject({ run: { fencingToken: TOKEN } });
    expect(JSON.parse(again?.events[0]?.json ?? '')).toEqual({ thought: 'b', timestamp });
    // All tokens of this worker prove that the run is its own.
    replies.append.push({ outcome: 'behind' });
    replies.restore.push({ outcome: 'claimed', events: 3 });
    await add('d');
    expect(calls[1]).toEqual(['restore', 30]);
    expect(notes).toEqual(['restored']);
  });

  it('is given up when another worker owns the run, or after three restorations for one event', async () => {
    const { add, replies, calls } = start();
    replies.append.push({ outcome: 'behind' });
    replies.restore.push({ outcome: 'fenced' });
    await expect(add('a')).rejects.toThrow('the run was behind');
    expect(calls).toHaveLength(1);
    const other = start();
    other.replies.append.push(...Array.from({ length: 9 }, () => ({ outcome: 'behind' }) as const));
    await expect(other.add('a')).rejects.toThrow('the run was behind');
    expect(other.calls).toHaveLength(3);
  });

  it('is not restored after a silence of more than 90 s, because the user may be erased by then', async () => {
    for (const [silentMs, restores] of [
      [90_000, 1],
      [90_001, 0],
    ] as const) {
      const { add, replies, calls, clock } = start();
      await add('a');
      clock.advance(silentMs);
      replies.append.push({ outcome: 'behind' });
      const result = await add('b').catch((error: unknown) => String(error));
      expect([calls.length, typeof result]).toEqual([restores, restores === 1 ? 'object' : 'string']);
    }
  });

  it('is restored at a confirmation, with what is missing, also after the end of the run', async () => {
    const { writer, add, replies, written, calls } = start();
    await add('a');
    await writer.add(event('end', { type: 'agent_completed' }), {});
    replies.restore.push({ outcome: 'claimed', events: 1 });
    await writer.confirm();
    expect(written().slice(2)).toEqual([[1, 'end']]);
    replies.restore.push({ outcome: 'finished' });
    await writer.confirm();
    expect([written().length, calls.length]).toEqual([3, 2]);
  });
});

describe('a journal entry without an event', () => {
  it('is stored behind the events before it, with the current token', async () => {
    const { writer, add, calls, appends } = start();
    const added = add('a');
    await writer.journal(journal);
    await added;
    expect(calls).toEqual([['journal', TOKEN, 'tool:call_1', 1]]);
    await writer.add(event('end', { type: 'agent_completed' }), {});
    expect(appends.at(-1)).not.toHaveProperty('hasNoJournal');
  });

  it('is stored again after Redis lost the run, and lost with the run of another worker', async () => {
    const { writer, calls, replies } = start();
    replies.journal.push('behind');
    replies.restore.push({ outcome: 'claimed', events: 0 });
    await writer.journal(journal);
    expect(calls.map(([name, token]) => [name, token])).toEqual([
      ['journal', TOKEN],
      ['restore', 0],
      ['journal', TOKEN],
    ]);
    replies.journal.push('behind');
    replies.restore.push({ outcome: 'fenced' });
    await expect(writer.journal(journal)).rejects.toThrow('the run was behind');
    replies.journal.push('fenced');
    await expect(writer.journal(journal)).rejects.toThrow('the run was fenced');
  });
});

describe('a suspension', () => {
  it.each(['waiting', 'answered'] as const)('that is %s ends the writing', async (outcome) => {
    const { writer, add, replies, appends } = start();
    replies.suspend.push(outcome);
    expect(await writer.suspend(wait)).toBe(outcome);
    await expect(add('late')).rejects.toThrow('finished');
    expect(appends).toHaveLength(0);
  });

  it('restores a lost run with its events and is tried again, three times', async () => {
    const { writer, add, replies, calls, written } = start();
    await add('a');
    replies.suspend.push('behind');
    replies.restore.push({ outcome: 'claimed', events: 0 });
    expect(await writer.suspend(wait)).toBe('waiting');
    expect(written()).toEqual([
      [0, 'a'],
      [0, 'a'],
    ]);
    expect(calls.map(([name]) => name)).toEqual(['suspend', 'restore', 'suspend']);
    expect(calls[2]).toEqual(['suspend', TOKEN]);
    const other = start();
    other.replies.suspend.push('behind', 'behind', 'behind', 'behind', 'behind');
    await expect(other.writer.suspend(wait)).rejects.toThrow('the run was behind');
    expect(other.calls.filter(([name]) => name === 'restore')).toHaveLength(3);
  });

  it('of a run that another worker owns fails', async () => {
    const { writer, replies, calls } = start();
    replies.suspend.push('fenced');
    await expect(writer.suspend(wait)).rejects.toThrow('the run was fenced');
    expect(calls).toHaveLength(1);
  });
});

describe('the open calls of a run', () => {
  const call = { callId: 'call_1', fields: {}, startedAt: 1 };

  it('are read for a run with events, and are none when they cannot be read', async () => {
    const { writer, replies } = start(claimedRun({ events: 1 }));
    replies.openCalls.push([call]);
    expect(await writer.openCalls()).toEqual([call]);
    replies.openCalls.push(new Error('no log'));
    expect(await writer.openCalls()).toEqual([]);
    const first = start();
    first.replies.openCalls.push([call]);
    expect(await first.writer.openCalls()).toEqual([]);
    expect(first.calls).toEqual([]);
  });
});
