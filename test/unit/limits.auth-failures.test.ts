import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from '@jest/globals';
import type { Clock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { AuthFailureLimiter } from '../../src/limits/auth-failure-limiter.ts';
import { PendingConnections } from '../../src/limits/pending-connections.ts';
import { ConnectionGuard } from '../../src/transports/connection-guard.ts';
import { ManualClock } from '../support/manual-clock.ts';

const MINUTE = 60_000;

function start(perMinute = 3) {
  let now = 1_000_000;
  const clock: Clock = { now: () => now, after: () => () => {}, every: () => () => {} };
  const failures = new AuthFailureLimiter({ clock }, { perMinute, blockingMsPerMinute: 1_000 });
  const fail = (address: string, times: number) => {
    for (let i = 0; i < times; i++) failures.recordFailure(address);
  };
  return {
    failures,
    fail,
    pass: (ms: number) => {
      now += ms;
    },
  };
}

describe('failed handshakes of an address', () => {
  it('close it for a minute once there are as many as the bound, and not before', () => {
    const { failures, fail, pass } = start();
    fail('a', 2);
    expect(failures.blockedForMs('a')).toBe(0);
    fail('a', 1);
    expect(failures.blockedForMs('a')).toBe(MINUTE);
    expect(failures.blockedForMs('b')).toBe(0);
    pass(MINUTE - 1);
    expect(failures.blockedForMs('a')).toBe(1);
    pass(1);
    expect(failures.blockedForMs('a')).toBe(0);
  });

  it('close it for no longer because the clock was set back', () => {
    const { failures, fail, pass } = start();
    fail('a', 3);
    pass(-60 * MINUTE);
    expect(failures.blockedForMs('a')).toBe(0);
  });

  it('are forgotten a minute after the first, when there were fewer', () => {
    const { failures, fail, pass } = start();
    fail('a', 2);
    pass(MINUTE);
    fail('a', 2);
    expect(failures.blockedForMs('a')).toBe(0);
  });

  it('close it for twice as long each further time, up to a quarter of an hour', () => {
    const { failures, fail, pass } = start();
    const times: number[] = [];
    for (let overrun = 0; overrun < 7; overrun++) {
      fail('a', 3);
      times.push(failures.blockedForMs('a') / MINUTE);
      pass(failures.blockedForMs('a'));
    }
    expect(times).toEqual([1, 2, 4, 8, 15, 15, 15]);
  });

  it('count while it is closed too, so that shouting makes it longer', () => {
    const { failures, fail } = start();
    fail('a', 6);
    expect(failures.blockedForMs('a')).toBe(2 * MINUTE);
  });

  it('are forgiven after a quarter of an hour without one', () => {
    const { failures, fail, pass } = start();
    fail('a', 6);
    pass(2 * MINUTE + 15 * MINUTE);
    fail('a', 3);
    expect(failures.blockedForMs('a')).toBe(MINUTE);
  });

  it('are remembered for ten thousand addresses, the latest ones', () => {
    const { failures, fail } = start(1);
    fail('first', 1);
    fail('kept', 1);
    for (let i = 0; i < 9_998; i++) fail(`a${i}`, 1);
    // The last failure decides, not the first.
    fail('first', 1);
    fail('one too many', 1);
    expect([failures.size, failures.blockedForMs('kept'), failures.blockedForMs('first')]).toEqual([
      10_000,
      0,
      2 * MINUTE,
    ]);
    for (let i = 0; i < 50_000; i++) fail(`b${i}`, 1);
    expect(failures.size).toBe(10_000);
  });
});

describe('long tasks of an address', () => {
  it('close it like failures, once they have kept the event loop for the bound within a minute', () => {
    const { failures, fail, pass } = start();
    failures.blocked('a', 600);
    expect(failures.blockedForMs('a')).toBe(0);
    pass(MINUTE);
    failures.blocked('a', 600);
    expect(failures.blockedForMs('a')).toBe(0);
    failures.blocked('a', 400);
    expect([failures.blockedForMs('a'), failures.blockedForMs('b')]).toEqual([MINUTE, 0]);
    // Further failures and blocks prolong it.
    failures.blocked('a', 1_000);
    expect(failures.blockedForMs('a')).toBe(2 * MINUTE);
    fail('a', 3);
    expect(failures.blockedForMs('a')).toBe(4 * MINUTE);
  });
});

describe('connections that wait for authentication', () => {
  it('are as many an address as is allowed, each counted until it leaves, once', () => {
    const pending = new PendingConnections({ perAddress: 2 });
    const handshakes = new ConnectionGuard(
      {
        pending,
        authFailureLimiter: { blockedForMs: () => 0, recordFailure: () => undefined },
        metrics: new Metrics(),
        clock: new ManualClock(),
      },
      { trustedProxyHops: 0, authDeadlineMs: 10_000 },
    );
    const from = (remoteAddress: string) => {
      return handshakes.register({ headers: {}, socket: { remoteAddress } } as unknown as IncomingMessage, '/ws');
    };
    const first = from('192.0.2.1');
    from('192.0.2.1');
    expect(() => from('192.0.2.1')).toThrow(expect.objectContaining({ code: 'AUTH_RATE_LIMITED' }));
    from('192.0.2.2');
    first.release();
    first.release();
    from('192.0.2.1');
    expect(() => from('192.0.2.1')).toThrow(expect.objectContaining({ code: 'AUTH_RATE_LIMITED' }));
    expect(pending.total).toBe(3);
  });

  it('are 2,000 a node, from however many addresses', () => {
    const pending = new PendingConnections({ perAddress: 50 });
    const entries = Array.from({ length: 2_001 }, (_, i) => pending.add(`a${i}`));
    expect(entries.at(-1)).toBe('node');
    expect(entries.slice(0, -1).every((full) => full === undefined)).toBe(true);
  });

  it('leave nothing of their addresses behind when they end', () => {
    const pending = new PendingConnections({ perAddress: 2 });
    for (const address of ['a', 'a', 'b']) pending.add(address);
    for (const address of ['a', 'b']) pending.remove(address);
    expect([pending.addresses, pending.total]).toEqual([1, 1]);
    pending.remove('a');
    expect([pending.addresses, pending.total]).toEqual([0, 0]);
  });

  it('are more a node where one address is allowed more', () => {
    const pending = new PendingConnections({ perAddress: 5_000 });
    const entries = Array.from({ length: 5_001 }, () => pending.add('the load generator'));
    expect(entries.filter((full) => full === undefined)).toHaveLength(5_000);
  });
});
