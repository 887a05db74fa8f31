import { describe, expect, it } from '@jest/globals';
import { Closers } from '../../src/lib/closers.ts';
import { SerialQueue } from '../../src/lib/serial-queue.ts';

describe('closers', () => {
  it('close the newest first, each after the one before has finished', async () => {
    const closers = new Closers();
    const log: string[] = [];
    for (const name of ['redis', 'hub', 'server']) {
      closers.add(name, async () => {
        log.push(`${name} closing`);
        await null;
        log.push(`${name} closed`);
      });
    }
    await closers.close();
    const names = ['server', 'hub', 'redis'];
    expect(log).toEqual(names.flatMap((name) => [`${name} closing`, `${name} closed`]));
  });

  it('close everything though some fail, and name those', async () => {
    const closers = new Closers();
    const closed: string[] = [];
    const fault = new Error('no connection');
    closers.add('redis', () => closed.push('redis'));
    closers.add('hub', () => Promise.reject(fault));
    closers.add('server', () => {
      throw fault;
    });
    const error = await closers.close().catch((thrown: unknown) => thrown);
    expect(closed).toEqual(['redis']);
    expect(error).toBeInstanceOf(AggregateError);
    expect((error as AggregateError).message).toBe('closing server; closing hub');
    expect((error as AggregateError).errors.map(({ cause }) => cause)).toEqual([fault, fault]);
  });

  it('close once, however often they are asked', async () => {
    const closers = new Closers();
    let count = 0;
    closers.add('redis', () => {
      count += 1;
    });
    await Promise.all([closers.close(), closers.close()]);
    await closers.close();
    expect(count).toBe(1);
  });
});

describe('a serial queue', () => {
  /** A task that ends when the test says so. */
  function gate() {
    const { promise, resolve } = Promise.withResolvers<void>();
    return { task: () => promise, open: resolve };
  }

  it('runs one task at a time, in the order they came', async () => {
    const queue = new SerialQueue(10, { onTaskFailed: () => undefined });
    const log: string[] = [];
    const first = gate();
    queue.add(async () => {
      log.push('first begins');
      await first.task();
      log.push('first ends');
    });
    for (const name of ['second', 'third']) queue.add(async () => void log.push(name));
    await null;
    expect(log).toEqual(['first begins']);
    first.open();
    await queue.idle();
    expect(log).toEqual(['first begins', 'first ends', 'second', 'third']);
  });

  it('takes no more than its bound, counting the one that runs, and again when there is room', async () => {
    const queue = new SerialQueue(2, { onTaskFailed: () => undefined });
    const [first, second] = [gate(), gate()];
    let refusedRan = false;
    expect(queue.add(first.task)).toBe(true);
    expect(queue.add(second.task)).toBe(true);
    expect(
      queue.add(async () => {
        refusedRan = true;
      }),
    ).toBe(false);
    expect(queue.length).toBe(2);
    first.open();
    second.open();
    await queue.idle();
    expect([queue.length, refusedRan]).toEqual([0, false]);
    expect(queue.add(async () => undefined)).toBe(true);
  });

  it('that is paused runs nothing until it starts, and then everything in order', async () => {
    const queue = new SerialQueue(2, { onTaskFailed: () => undefined }, { paused: true });
    const ran: number[] = [];
    const added = [1, 2, 3].map((one) => queue.add(async () => void ran.push(one)));
    await new Promise((resolve) => setImmediate(resolve));
    expect([added, ran, queue.length]).toEqual([[true, true, false], [], 2]);
    queue.start();
    await queue.idle();
    expect([ran, queue.length]).toEqual([[1, 2], 0]);
  });

  it('is idle when everything that was added before has run, not what comes later', async () => {
    const queue = new SerialQueue(10, { onTaskFailed: () => undefined });
    const later = gate();
    let ran = false;
    queue.add(async () => {
      ran = true;
    });
    const idle = queue.idle();
    queue.add(later.task);
    await idle;
    expect([ran, queue.length]).toEqual([true, 1]);
    later.open();
    await queue.idle();
  });
});
