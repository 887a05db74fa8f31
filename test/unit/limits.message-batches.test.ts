import { describe, expect, it } from '@jest/globals';
import { batchSize, type CountedBatch, MessageBatches } from '../../src/limits/message-batches.ts';
import { ManualClock } from '../support/manual-clock.ts';

const LIMIT = 300;
const WINDOW_MS = 60_000;

/** A counter as Redis keeps it, and nodes that count in it. Replies arrive when the test lets them. */
function startNodes(count: number, limit = LIMIT) {
  const clock = new ManualClock();
  let counted = 0;
  let requests = 0;
  const countIn = async (size: number): Promise<CountedBatch> => {
    requests += 1;
    const before = counted;
    counted += size;
    return { granted: Math.min(size, Math.max(0, limit - before)), remainingMs: WINDOW_MS };
  };
  const nodes = Array.from({ length: count }, () => {
    const batches = new MessageBatches({ clock });
    return async (): Promise<boolean> => {
      if (batches.take('user', limit)) return true;
      const { position, counting } = batches.join('user', limit, countIn);
      const result = await counting;
      return !(result instanceof Error) && position <= result.granted;
    };
  });
  return {
    clock,
    nodes,
    requests: () => requests,
    newWindow: () => {
      counted = 0;
    },
  };
}

describe('a batch of messages', () => {
  it('has one message for limits below 100, and at most a fiftieth of a limit or 100', () => {
    expect([1, 30, 60, 99, 100, 300, 3_000, 1_000_000].map(batchSize)).toEqual([1, 1, 1, 1, 2, 6, 60, 100]);
  });

  it.each([30, 60, 300, 3_000])(
    'grants a user of one node exactly %i messages, one after the other or at once',
    async (limit) => {
      for (const atOnce of [1, 7, limit * 2]) {
        const { nodes, requests } = startNodes(1, limit);
        const [send] = nodes;
        let granted = 0;
        for (let sent = 0; sent < limit * 2; sent += atOnce) {
          const results = await Promise.all(Array.from({ length: atOnce }, () => send?.()));
          granted += results.filter(Boolean).length;
        }
        expect(granted).toBe(limit);
        expect(requests()).toBeLessThanOrEqual(Math.ceil(limit / batchSize(limit)) + limit * 2);
      }
    },
  );

  it('grants a user of several nodes at most the limit, and early at most the unused rest of a batch per further node', async () => {
    const random = Math.random;
    for (let round = 0; round < 50; round++) {
      const { nodes } = startNodes(4);
      let granted = 0;
      for (let sent = 0; sent < LIMIT * 2; sent += 10) {
        const batch = Array.from({ length: 10 }, () => nodes[Math.floor(random() * nodes.length)]?.());
        granted += (await Promise.all(batch)).filter(Boolean).length;
      }
      expect(granted).toBeLessThanOrEqual(LIMIT);
      expect(granted).toBeGreaterThanOrEqual(LIMIT - 3 * (batchSize(LIMIT) - 1));
    }
  });

  it('ends with the window in which it was counted, and when the clock is set back before its request', async () => {
    const { nodes, clock, requests } = startNodes(1);
    const [send] = nodes;
    await send?.();
    await send?.();
    expect(requests()).toBe(1);
    clock.advance(WINDOW_MS);
    await send?.();
    expect(requests()).toBe(2);
    clock.set(-1);
    await send?.();
    expect(requests()).toBe(3);
  });

  it('is refused in whole when Redis fails, and the next message requests another', async () => {
    const batches = new MessageBatches({ clock: new ManualClock() });
    const failed = batches.join('user', LIMIT, async () => new Error('away'));
    expect(await failed.counting).toBeInstanceOf(Error);
    expect(batches.take('user', LIMIT)).toBe(false);
    const { counting } = batches.join('user', LIMIT, async (size) => ({ granted: size, remainingMs: WINDOW_MS }));
    await counting;
    expect(batches.take('user', LIMIT)).toBe(true);
  });

  it('does not serve another limit after a change of plan', async () => {
    const batches = new MessageBatches({ clock: new ManualClock() });
    await batches.join('user', LIMIT, async (size) => ({ granted: size, remainingMs: WINDOW_MS })).counting;
    expect(batches.take('user', 60)).toBe(false);
  });

  it('is stored for 50,000 users; a further one is counted message by message until a window ends', async () => {
    const clock = new ManualClock();
    const batches = new MessageBatches({ clock });
    const join = (user: string) => batches.join(user, LIMIT, async (n) => ({ granted: n, remainingMs: WINDOW_MS }));
    const first = join('first');
    for (let at = 1; at < 50_000; at++) join(`user_${at}`);
    expect(join('one too many').size).toBe(1);
    await first.counting;
    clock.advance(WINDOW_MS - 1);
    expect(join('one too many').size).toBe(1);
    clock.advance(1);
    expect(join('one too many').size).toBe(batchSize(LIMIT));
    // A user who has a batch gets the next one without a place of another user.
    expect(join('one too many').size).toBe(batchSize(LIMIT));
  });
});
