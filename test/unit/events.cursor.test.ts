import { describe, expect, it } from '@jest/globals';
import { Cursor, type ReplayGap, type ResumeResult } from '../../src/events/cursor.ts';
import { type LogPage, type LogPosition, parsePublished } from '../../src/events/event-log.ts';
import type { LogEntry } from '../../src/protocol/messages.ts';
import { RedisUnavailable } from '../../src/redis/errors.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { until } from '../support/until.ts';

const EPOCH = 'epoch_1';
const ALLOWED = Promise.resolve();

function entry(seq: number, { epoch = EPOCH, json = '{}' } = {}): LogEntry {
  return { type: 'agent_thinking', seq, epoch, timestamp: `at ${seq}`, json };
}

/** A log in memory, of which a test sets the bounds. It answers as `EventLog.read`. */
class MemoryLog {
  epoch = EPOCH;
  head = 0;
  oldest = 1;
  json = '{}';
  readonly reads: LogPosition[] = [];
  /** Errors of the next reads. */
  readonly failures: Error[] = [];
  /** Keeps the replies of reads back until it resolves. */
  held: Promise<unknown> = ALLOWED;

  async read(_userId: string, position: LogPosition, limit: number): Promise<LogPage> {
    this.reads.push(position);
    const { epoch, head, oldest, json } = this;
    await this.held;
    const failure = this.failures.shift();
    if (failure) throw failure;
    const first = Math.max(oldest, position.after + 1);
    const count = position.epoch === epoch ? Math.min(limit, Math.max(0, head - first + 1)) : 0;
    const entries = Array.from({ length: count }, (_, at) => entry(first + at, { epoch, json }));
    return { epoch, head, oldest, entries };
  }
}

/** A cursor on a log in memory; it is live at `at`. */
function start(options: { head?: number; at?: number; isLive?: boolean } = {}) {
  const { head = 0, isLive = true } = options;
  const at = options.at ?? head;
  const log = new MemoryLog();
  log.head = head;
  const clock = new ManualClock();
  const received: number[] = [];
  const gaps: ReplayGap[] = [];
  const errors: unknown[] = [];
  const reader = { writable: async () => true };
  const sink = {
    deliver: ({ seq }: LogEntry) => void received.push(seq),
    onReplayGap: (gap: ReplayGap) => void gaps.push(gap),
    writable: () => reader.writable(),
    onError: (error: unknown) => void errors.push(error),
  };
  const cursor = new Cursor({ eventLog: log, clock }, 'user_1', sink);
  if (isLive) {
    cursor.start(EPOCH, at);
    cursor.unpause();
  }
  const resume = async (after: number, epoch = EPOCH, allowed = ALLOWED) => {
    const results: ResumeResult[] = [];
    await cursor.resume({ after, epoch, allowed }, (result) => void results.push(result));
    return results;
  };
  return { log, clock, cursor, received, gaps, errors, reader, resume };
}

/** The numbers from `first` to `last`. */
const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, at) => first + at);

/** Lets everything happen that waits for no time and no socket. */
async function turns(): Promise<void> {
  for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe('a live cursor', () => {
  it('delivers each event once, whatever the live tail repeats, without a read of the log', () => {
    const { cursor, received, log } = start({ head: 5 });
    for (const seq of [6, 6, 5, 1, 7]) cursor.onLiveEntry(entry(seq));
    expect([received, log.reads]).toEqual([[6, 7], []]);
  });

  it('reads what the live tail missed, in front of the event that shows the gap', async () => {
    const { cursor, received, log } = start({ head: 5 });
    cursor.onLiveEntry(entry(6));
    log.head = 9;
    cursor.onLiveEntry(entry(8));
    cursor.onLiveEntry(entry(10));
    await until(() => received.length === 5);
    expect(received).toEqual([6, 7, 8, 9, 10]);
    expect(log.reads).toEqual([{ epoch: EPOCH, after: 6, delivered: 'at 6' }]);
  });

  it('reads the log once for any number of calls, and again for a gap behind the head', async () => {
    const { cursor, received, log } = start({ head: 2, at: 0 });
    for (let i = 0; i < 5; i++) cursor.catchUp();
    await until(() => received.length === 2);
    expect(log.reads).toEqual([{ epoch: EPOCH, after: 0, delivered: '' }]);
    cursor.onLiveEntry(entry(4));
    log.head = 4;
    await until(() => received.length === 4);
    expect(received).toEqual([1, 2, 3, 4]);
  });

  it('reads the log when another component has seen a later head or another epoch, and only then', async () => {
    const { cursor, received, log } = start({ head: 5 });
    cursor.noteHead(EPOCH, 5);
    cursor.noteHead(EPOCH, 4);
    expect(log.reads).toHaveLength(0);
    log.head = 6;
    cursor.noteHead(EPOCH, 6);
    await until(() => received.length === 1);
    cursor.pause();
    cursor.noteHead(EPOCH, 9);
    expect(log.reads).toHaveLength(1);
    cursor.unpause();
    cursor.noteHead('epoch_2', 1);
    await until(() => log.reads.length === 2);
  });

  it('delivers nothing after its stop', async () => {
    const { cursor, received, log } = start({ head: 2, at: 0 });
    const held = Promise.withResolvers<void>();
    log.held = held.promise;
    cursor.catchUp();
    cursor.onLiveEntry(entry(3));
    await until(() => log.reads.length === 1);
    cursor.stop();
    held.resolve();
    cursor.onLiveEntry(entry(4));
    cursor.catchUp();
    await turns();
    expect([received, log.reads.length]).toEqual([[], 1]);
  });
});

describe('a paused cursor', () => {
  it('delivers nothing before it has a position, and then what arrived meanwhile', () => {
    const { cursor, received, log } = start({ isLive: false });
    cursor.catchUp();
    for (const seq of [5, 6, 7]) cursor.onLiveEntry(entry(seq));
    cursor.start(EPOCH, 5);
    expect(received).toEqual([]);
    cursor.unpause();
    expect([received, log.reads]).toEqual([[6, 7], []]);
  });

  it('waits for as many unpauses as there were pauses', () => {
    const { cursor, received } = start();
    cursor.pause();
    cursor.pause();
    cursor.onLiveEntry(entry(1));
    cursor.unpause();
    expect(received).toEqual([]);
    cursor.unpause();
    expect(received).toEqual([1]);
  });

  it.each([
    [256, 0],
    [257, 1],
  ])('keeps %i live events with %i reads of the log', async (count, reads) => {
    const { cursor, received, log } = start();
    cursor.pause();
    for (const seq of range(1, count)) cursor.onLiveEntry(entry(seq));
    log.head = count;
    cursor.unpause();
    await until(() => received.length === count);
    expect(received).toEqual(range(1, count));
    expect(log.reads.length > 0).toBe(reads > 0);
  });
});

describe('a replay gap', () => {
  it('of trimmed events is reported once, and the cursor continues behind the head', async () => {
    const { cursor, received, gaps, log } = start({ head: 5 });
    Object.assign(log, { head: 20, oldest: 10 });
    cursor.catchUp();
    await until(() => gaps.length === 1);
    await until(() => {
      cursor.onLiveEntry(entry(21));
      return received.length > 0;
    });
    expect([gaps, received]).toEqual([[{ reason: 'trimmed', oldest_seq: 10, epoch: EPOCH }], [21]]);
  });

  it('of another log epoch is reported, and its events follow', async () => {
    const { cursor, received, gaps, log } = start({ head: 5 });
    Object.assign(log, { epoch: 'epoch_2', head: 2 });
    cursor.onLiveEntry(entry(2, { epoch: 'epoch_2' }));
    await until(() => gaps.length === 1);
    await until(() => {
      cursor.onLiveEntry(entry(3, { epoch: 'epoch_2' }));
      return received.length > 0;
    });
    expect([gaps, received]).toEqual([[{ reason: 'epoch_changed', oldest_seq: 1, epoch: 'epoch_2' }], [3]]);
  });

  it('is none when the next event is the oldest, or when all events are read and gone', async () => {
    for (const [head, oldest] of [
      [7, 6],
      [5, 6],
      [5, 99],
    ] as const) {
      const { cursor, gaps, received, log } = start({ head: 5 });
      Object.assign(log, { head, oldest });
      cursor.catchUp();
      await until(() => log.reads.length === 1);
      await until(() => received.length === head - 5);
      expect(gaps).toEqual([]);
    }
  });
});

describe('a resume', () => {
  it('replays every later event before the boundary, over several pages, and live ones after it', async () => {
    const { cursor, received, log } = start({ head: 250 });
    const order: unknown[] = [];
    const resumed = cursor.resume({ after: 10, epoch: EPOCH, allowed: ALLOWED }, (result) => {
      order.push(received.length, result);
    });
    cursor.onLiveEntry(entry(251));
    await resumed;
    expect(order).toEqual([240, { resumed: true, from: 11, to: 250, epoch: EPOCH }]);
    expect(received).toEqual(range(11, 251));
    // A position that a client names proves nothing.
    expect(log.reads.map(({ after, delivered }) => [after, delivered])).toEqual([
      [10, undefined],
      [110, 'at 110'],
      [210, 'at 210'],
    ]);
  });

  it('needs no second read when the first page contains all, or when nothing is missing', async () => {
    const { resume, received, log } = start({ head: 100 });
    expect(await resume(0)).toEqual([{ resumed: true, from: 1, to: 100, epoch: EPOCH }]);
    expect(await resume(100)).toEqual([{ resumed: true, from: 101, to: 100, epoch: EPOCH }]);
    expect([received.length, log.reads.length]).toEqual([100, 2]);
  });

  it.each([
    ['the oldest event is the next one', 4, EPOCH, { resumed: true, from: 5, to: 9, epoch: EPOCH }],
    ['the next event was trimmed', 3, EPOCH, { resumed: false, reason: 'trimmed', oldest_seq: 5, epoch: EPOCH }],
    ['it is beyond the head', 10, EPOCH, { resumed: false, reason: 'epoch_changed', oldest_seq: 5, epoch: EPOCH }],
    ['it is of another epoch', 6, 'old', { resumed: false, reason: 'epoch_changed', oldest_seq: 5, epoch: EPOCH }],
  ])('whose position says that %s has this result', async (_what, after, epoch, expected) => {
    const { cursor, resume, received, gaps, log } = start({ head: 9 });
    log.oldest = 5;
    expect(await resume(after, epoch)).toEqual([expected]);
    expect([received.length, gaps]).toEqual([expected.resumed ? 5 : 0, []]);
    // A refused resume leaves the position as it was.
    cursor.onLiveEntry(entry(10));
    expect(received.at(-1)).toBe(10);
  });

  it('that is not allowed, or cannot read, fails, delivers nothing and leaves the cursor live', async () => {
    const { cursor, resume, received, log } = start({ head: 9 });
    await expect(resume(1, EPOCH, Promise.reject(new Error('not allowed')))).rejects.toThrow('not allowed');
    log.failures.push(new Error('no log'));
    await expect(resume(1)).rejects.toThrow('no log');
    expect(received).toEqual([]);
    cursor.onLiveEntry(entry(10));
    expect(received).toEqual([10]);
  });

  it('ends without its boundary when the connection closes meanwhile', async () => {
    const { cursor, resume, log, received } = start({ head: 9 });
    const held = Promise.withResolvers<void>();
    log.held = held.promise;
    const results = resume(1);
    await until(() => log.reads.length === 1);
    cursor.stop();
    held.resolve();
    expect([await results, received]).toEqual([[], []]);
  });
});

describe('a client that reads too slowly', () => {
  it('stops the cursor after half a million characters, within a page and between two', async () => {
    for (const [json, delivered] of [
      ['x'.repeat(128 * 1024), 4],
      ['x'.repeat(1_024), 100],
    ] as const) {
      const { cursor, received, log, reader } = start({ head: 300, at: 0 });
      log.json = json;
      reader.writable = async () => false;
      cursor.catchUp();
      await until(() => received.length >= delivered);
      await turns();
      cursor.onLiveEntry(entry(301));
      expect([received, log.reads.length]).toEqual([range(1, delivered), 1]);
    }
  });

  it('continues where it stopped when it can be written to again', async () => {
    const { cursor, received, log, reader } = start({ head: 150, at: 0 });
    log.json = 'x'.repeat(64 * 1024);
    let checks = 0;
    reader.writable = async () => {
      checks += 1;
      return true;
    };
    cursor.catchUp();
    await until(() => received.length === 150);
    expect(received).toEqual(range(1, 150));
    // Every eighth event, and once between the pages.
    expect(checks).toBe(12 + 1 + 6);
  });
});

describe('a log that cannot be read', () => {
  it('is read again every quarter of a second while Redis is unavailable, and nothing is lost', async () => {
    const { cursor, received, errors, log, clock } = start({ head: 3, at: 0 });
    log.failures.push(new RedisUnavailable(), new RedisUnavailable());
    cursor.catchUp();
    await until(() => log.failures.length === 1);
    clock.advance(249);
    await turns();
    expect(log.reads).toHaveLength(1);
    await until(() => {
      clock.advance(250);
      return received.length === 3;
    });
    expect([received, errors]).toEqual([[1, 2, 3], []]);
  });

  it('for another reason is reported once, and the next gap reads again', async () => {
    const { cursor, received, errors, log } = start({ head: 3, at: 0 });
    const error = new Error('not a log');
    log.failures.push(error);
    cursor.catchUp();
    await until(() => errors.length > 0);
    await turns();
    expect([received, errors]).toEqual([[], [error]]);
    cursor.noteHead(EPOCH, 3);
    await until(() => received.length === 3);
  });

  it('is not reported for a cursor that has stopped', async () => {
    const { cursor, errors, log } = start({ head: 3, at: 0 });
    const held = Promise.withResolvers<void>();
    log.held = held.promise;
    log.failures.push(new Error('closed'));
    cursor.catchUp();
    await until(() => log.reads.length === 1);
    cursor.stop();
    held.resolve();
    await until(() => log.failures.length === 0);
    await turns();
    expect(errors).toEqual([]);
  });
});

describe('a published event', () => {
  it('is read with all its fields, whatever they contain', () => {
    const json = '{"seq":12,"thought":"a b  c"}';
    const timestamp = '2026-01-02T03:04:05.678Z';
    expect(parsePublished(`epoch_1 12 agent_thinking ${timestamp} ${json}`)).toEqual({
      type: 'agent_thinking',
      seq: 12,
      epoch: 'epoch_1',
      timestamp,
      json,
    });
  });
});
