import { beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type Core, startCore, thinking } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';

const BYTES = 256 * 1024;
/** Overhead of an entry beside type, timestamp and fields, as include/streams.lua counts it. */
const OVERHEAD = 64;

let core: Core;

beforeAll(async () => {
  core = await startCore({ logBytes: BYTES });
});

const start = { epoch: undefined, after: 0, delivered: undefined };

/** Returns a user's whole log as a reader receives it, and its size as the limit counts it. */
async function logOf(userId: string, of = core) {
  const { epoch } = await of.eventLog.read(userId, start, 1);
  const page = await of.eventLog.read(userId, { ...start, epoch }, 10_000);
  const sizes = page.entries.map(
    ({ type, timestamp, json }) => OVERHEAD + type.length + timestamp.length + byteLength(json),
  );
  return { ...page, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}

const byteLength = (text: string) => Buffer.byteLength(text);

describe('the bytes of an event log', () => {
  it('stay within their bound, and no more is removed than the bound asks for', async () => {
    const size = fc.oneof(fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 64 * 1024 }));
    const appends = fc.array(fc.array(size, { minLength: 1, maxLength: 4 }), { minLength: 10, maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(appends, async (all) => {
        const userId = freshUserId();
        let [seq, largest] = [0, 0];
        for (const sizes of all) {
          await core.log.append({ userId, events: sizes.map((chars) => thinking('x'.repeat(chars))) });
          seq += sizes.length;
          largest = Math.max(largest, ...sizes);
        }
        const { head, oldest, entries, bytes } = await logOf(userId);
        expect(bytes).toBeLessThanOrEqual(BYTES);
        expect(entries.map((entry) => entry.seq)).toEqual(
          Array.from({ length: seq - oldest + 1 }, (_, at) => oldest + at),
        );
        expect(head).toBe(seq);
        if (oldest > 1) expect(bytes).toBeGreaterThan(BYTES - largest - 1_000);
      }),
      { numRuns: 20 },
    );
  });

  it('follow the entries that leave by number and by age', async () => {
    const short = await startCore({ logBytes: BYTES, logLength: 10 });
    const userId = freshUserId();
    // By number alone, at most 110 entries of 1 KiB: below the limit for any number of appends.
    for (let at = 0; at < 600; at++) await short.log.append({ userId, events: [thinking('x'.repeat(1_000))] });
    const before = await logOf(userId, short);
    expect(before.entries.length).toBeGreaterThanOrEqual(10);
    for (let at = 0; at < 8; at++) await short.log.append({ userId, events: [thinking('x'.repeat(60_000))] });
    const { bytes, oldest, head } = await logOf(userId, short);
    expect(bytes).toBeLessThanOrEqual(BYTES);
    expect(head).toBe(608);
    expect(oldest).toBe(605);
  });

  it('bound the memory of the stream, with a tenth to spare', async () => {
    const userId = freshUserId();
    for (let at = 0; at < 200; at++) await core.log.append({ userId, events: [thinking('x'.repeat(20_000))] });
    const { log } = core.keys.user(userId);
    expect(Number(await core.redis.memory('USAGE', log, 'SAMPLES', 0))).toBeLessThan(1.25 * BYTES);
  });

  it('keep the newest event, whatever its size', async () => {
    const userId = freshUserId();
    await core.log.append({ userId, events: [thinking('small')] });
    await core.log.append({ userId, events: [thinking('x'.repeat(2 * BYTES))] });
    expect(await logOf(userId)).toMatchObject({ oldest: 2, head: 2 });
    await core.log.append({ userId, events: [thinking('small')] });
    expect(await logOf(userId)).toMatchObject({ oldest: 3, head: 3 });
  });

  it('of entries that an older version wrote are unknown: those leave first', async () => {
    const userId = freshUserId();
    const { log, logState } = core.keys.user(userId);
    for (let seq = 1; seq <= 3; seq++) {
      await core.redis.xadd(
        log,
        `${seq}-0`,
        't',
        'agent_thinking',
        's',
        'then',
        'a',
        `${Date.now()}`,
        'f',
        `{"seq":${seq}}`,
      );
    }
    await core.redis.hset(logState, { epoch: 'epoch_1', seq: '3' });
    await core.log.append({ userId, events: [thinking('new')] });
    expect(await logOf(userId)).toMatchObject({ epoch: 'epoch_1', oldest: 1, head: 4 });
    for (let at = 0; at < 5; at++) await core.log.append({ userId, events: [thinking('x'.repeat(60_000))] });
    expect((await logOf(userId)).oldest).toBeGreaterThan(3);
  });
});
