import { describe, expect, it } from '@jest/globals';
import { Keepalive } from '../../src/connections/keepalive.ts';

const LIMITS = { heartbeatMs: 1_000, idleTimeoutMs: 5_000, maxAgeMs: 0 };
const HOUR_MS = 3_600_000;

describe('the pulse of a connection', () => {
  it('asks for a heartbeat once an interval, and for the end after a silence', () => {
    const keepalive = new Keepalive(LIMITS, 0);
    expect([500, 1_000, 1_500, 2_000, 4_999, 5_000].map((now) => keepalive.due(now, false))).toEqual([
      undefined,
      'heartbeat',
      undefined,
      'heartbeat',
      'heartbeat',
      'silence',
    ]);
    keepalive.markAlive(5_000);
    expect(keepalive.due(5_001, false)).toBeUndefined();
  });

  it('ends connections that opened together over a fifth of their age, none early, none late', () => {
    const ages = Array.from({ length: 2_000 }, () => {
      const keepalive = new Keepalive({ heartbeatMs: Infinity, idleTimeoutMs: Infinity, maxAgeMs: HOUR_MS }, 0);
      let now = 0.9 * HOUR_MS - 1_000;
      while (keepalive.due(now, false) !== 'old_age') now += 1_000;
      return now / HOUR_MS;
    });
    expect(Math.min(...ages)).toBeGreaterThanOrEqual(0.9);
    expect(Math.max(...ages)).toBeLessThanOrEqual(1.101);
    // 2,000 over ten slots: 200 each. A slot with fewer than 130 has a probability of one in a million.
    const shares = Array.from(
      { length: 10 },
      (_, at) => ages.filter((age) => Math.floor((age - 0.9) * 50) === at).length,
    );
    for (const part of shares) expect(part).toBeGreaterThan(130);
  });

  it('gives one that is answering something half a minute more, and no longer', () => {
    const keepalive = new Keepalive({ heartbeatMs: Infinity, idleTimeoutMs: Infinity, maxAgeMs: 10_000 }, 0);
    expect(keepalive.due(11_001, true)).toBeUndefined();
    expect(keepalive.due(11_002, false)).toBe('old_age');
    expect(keepalive.due(41_001, true)).toBe('old_age');
  });

  it('never ends one by its age when there is none', () => {
    expect(
      new Keepalive({ ...LIMITS, idleTimeoutMs: Infinity, heartbeatMs: Infinity }, 0).due(1e15, false),
    ).toBeUndefined();
  });
});
