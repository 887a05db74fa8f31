import { describe, expect, it } from '@jest/globals';
import { Permissions } from '../../src/catalogue/permissions.ts';
import type { Plan } from '../../src/catalogue/plans.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { type QuotaReply, Quotas } from '../../src/limits/quotas.ts';
import type { Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { anyCaller } from '../support/tools.ts';

const NOW = Date.parse('2026-05-06T07:08:09.000Z');
/** Limits of the permission `analytics` in the product's file. */
const [PER_HOUR, PER_DAY] = [100, 1_000];

/** Quotas whose decisions are made without Redis: a test supplies the replies of the scripts. */
function start() {
  const files = catalogues({
    tools: [
      toolRow({ name: 'report', permission: 'analytics' }),
      toolRow({ name: 'chart', permission: 'analytics' }),
      toolRow({ name: 'free' }),
    ],
    plans: {
      small: planRow({ rank: 0, multiplier: 0.001, allowances: { report: 3, any: 7 } }),
      large: planRow({ rank: 1, multiplier: 2.5, allowances: { report: 30 } }),
      huge: planRow({ rank: 2, multiplier: 2.5 }),
    },
  });
  const { plans, tools } = files;
  const metrics = new Metrics();
  const permissions = new Permissions({ plans, tools }, { environment: 'test' });
  const redis = undefined as unknown as Redis;
  const quotas = new Quotas({ redis, keys: new Keys('t'), plans, tools, permissions, metrics }, { reservationMs: 500 });
  const tool = (name: string) => {
    const found = tools.get(name);
    if (!found) throw new Error(`no tool ${name}`);
    return found;
  };
  const reservation = (name: string, plan: string, mayRequestInput = false) => {
    return quotas.reservationFor({ callId: 'call_1', tool: tool(name), caller: anyCaller(plan), mayRequestInput });
  };
  const limitsOf = (name: string, plan: string) => {
    return quotas.limitsOf(tool(name), plans.effective(plan) as Plan).map((limit) => [limit.name, limit.max]);
  };
  const results = async () => {
    const { values } = await metrics.quotaDecisions.get();
    return Object.fromEntries(values.map(({ labels, value }) => [labels.result, value]));
  };
  const refusal = (name: string, plan: string, reply: QuotaReply, mayRequestInput = false) => {
    const decision = reservation(name, plan, mayRequestInput).decision(false, reply);
    if (decision.allowed) throw new Error('allowed');
    const { code, message, retryAfterMs, fields } = decision.error;
    return { code, message, retryAfterMs, fields };
  };
  return { reservation, limitsOf, refusal, results };
}

describe('the limits of a tool', () => {
  it('are those of its permission times the multiplier, at least one, and the allowance of the plan', () => {
    const { limitsOf } = start();
    expect(limitsOf('report', 'large')).toEqual([
      ['analytics_per_hour', 2.5 * PER_HOUR],
      ['analytics_per_day', 2.5 * PER_DAY],
      ['report_per_day', 30],
    ]);
    expect(limitsOf('report', 'small')).toEqual([
      ['analytics_per_hour', 1],
      ['analytics_per_day', 1],
      ['report_per_day', 3],
    ]);
    expect(limitsOf('chart', 'small').at(-1)).toEqual(['chart_per_day', 7]);
    expect(limitsOf('free', 'huge')).toEqual([]);
  });
});

describe('a reservation', () => {
  it('sends its member, its lifetime and its limits, and commits what was used of them', () => {
    const reservation = start().reservation('report', 'large');
    const limits = [
      ['analytics_per_hour', 'permission:analytics', 250, 3_600_000, 300_000],
      ['analytics_per_day', 'permission:analytics', 2_500, 86_400_000, 3_600_000],
      ['report_per_day', 'tool:report', 30, 86_400_000, 3_600_000],
    ];
    const member = 'call_1 report analytics';
    expect(JSON.parse(reservation.request)).toEqual({ member, concurrency: 1_000, forMs: 500, limits });
    const commit = reservation.commit({ units: 4, completedAt: '2026-05-06T07:08:09.000Z' });
    expect(JSON.parse(commit)).toEqual({ member, limits, day: '2026-05-06', month: '2026-05', units: 4 });
    expect(JSON.parse(reservation.inputRequired)).toEqual({ member, limits: [], units: 0 });
  });

  it('of a tool that may request input also bounds the input requests, eight per use and one', () => {
    const reservation = start().reservation('report', 'large', true);
    const inputs = [
      ['questions_analytics_per_hour', 'permission:analytics', 2_001, 3_600_000, 300_000],
      ['questions_analytics_per_day', 'permission:analytics', 20_001, 86_400_000, 3_600_000],
      ['questions_report_per_day', 'tool:report', 241, 86_400_000, 3_600_000],
    ];
    expect(JSON.parse(reservation.request).limits.slice(3)).toEqual(inputs);
    expect(JSON.parse(reservation.inputRequired).limits).toEqual(inputs);
  });

  it('of a tool without hourly limit allows the input requests of sixty uses per hour', () => {
    const { limits } = JSON.parse(start().reservation('free', 'huge', true).request);
    expect(limits).toEqual([['questions_basic_per_hour', 'permission:basic', 481, 3_600_000, 300_000]]);
  });

  it('that is allowed reports every limit, and the one with the least remaining uses in front', async () => {
    const { reservation, results } = start();
    const leaves = NOW + 60_000;
    const decision = reservation('report', 'large').decision(true, [NOW, 10, leaves, 2_499, leaves + 1, 5, 0]);
    expect(decision).toEqual({
      allowed: true,
      status: {
        allowed: true,
        limits: { analytics_per_hour: 250, analytics_per_day: 2_500, report_per_day: 30 },
        current_usage: { analytics_per_hour: 10, analytics_per_day: 2_499, report_per_day: 5 },
        limit: 2_500,
        used: 2_499,
        remaining: 1,
        resets_at: new Date(leaves + 1).toISOString(),
      },
    });
    const unlimited = reservation('free', 'huge').decision(true, [NOW]);
    const none = { limit: null, used: null, remaining: null, resets_at: null };
    expect(unlimited).toEqual({ allowed: true, status: { allowed: true, limits: {}, current_usage: {}, ...none } });
    expect(await results()).toEqual({ allowed: 2 });
  });
});

describe('a refused call', () => {
  const used: readonly number[] = [250, NOW + 60_000, 300, NOW + 3_600_000, 30, NOW + 7_200_000];

  it('of an hourly limit is RATE_LIMITED until the oldest use leaves the window', async () => {
    const { refusal, results } = start();
    expect(refusal('report', 'large', [NOW, 1, ...used])).toEqual({
      code: 'RATE_LIMITED',
      message: 'Rate limit exceeded: analytics_per_hour is 250. Use report again later.',
      retryAfterMs: 60_000,
      fields: {
        tool_name: 'report',
        rate_limit_status: expect.objectContaining({ allowed: false, remaining: 0 }),
        resets_at: new Date(NOW + 60_000).toISOString(),
      },
    });
    expect(await results()).toEqual({ RATE_LIMITED: 1 });
  });

  it('of a daily limit is QUOTA_EXCEEDED, and names the cheapest plan that allows more', () => {
    const { refusal } = start();
    const { code, message, fields } = refusal('report', 'small', [NOW, 3, 0, 0, 0, 0, 3, NOW + 7_200_000]);
    expect([code, message]).toEqual([
      'QUOTA_EXCEEDED',
      'The plan small includes 3 uses per day (report_per_day), and all of them are used.',
    ]);
    expect(fields).toMatchObject({ resets_at: new Date(NOW + 7_200_000).toISOString(), upgrade_path: 'large' });
    expect(refusal('report', 'large', [NOW, 3, ...used]).fields).toMatchObject({ upgrade_path: 'huge' });
    expect(refusal('report', 'large', [NOW, 2, ...used]).fields).toMatchObject({ upgrade_path: null });
  });

  it('that has too many calls beside it, or no time, is worth a retry after a second', () => {
    const { refusal } = start();
    const busy = refusal('report', 'large', [NOW, 0, ...used]);
    expect(busy).toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 1_000, fields: { tool_name: 'report' } });
    expect(busy.message).toContain('too many tool calls are in flight');
    expect(busy.fields).not.toHaveProperty('resets_at');
    const timeless = refusal('report', 'large', [NOW, 1, 250, 0, 0, 0, 0, 0]);
    expect(timeless).toMatchObject({ retryAfterMs: 1_000, fields: { resets_at: null } });
  });

  it('that requested too much input is RATE_LIMITED by the time of that limit', () => {
    const { refusal } = start();
    const inputs = [0, 0, 20_001, NOW + 30_000, 0, NOW + 400];
    const reply = (reached: number): QuotaReply => [NOW, reached, ...used, ...inputs];
    expect(refusal('report', 'large', reply(5), true)).toEqual({
      code: 'RATE_LIMITED',
      message: 'Rate limit exceeded: report sent too many input requests without completing a call.',
      retryAfterMs: 30_000,
      fields: { tool_name: 'report' },
    });
    expect(refusal('report', 'large', reply(6), true)).toMatchObject({ retryAfterMs: 1_000 });
  });

  it('with one new idempotency key too many says how many an hour has, and when the next is possible', async () => {
    const { reservation, results } = start();
    const { newKeys } = reservation('report', 'large');
    const limit = ['idempotency_keys_per_hour', 'idempotency_keys', 1_000_000, 3_600_000, 300_000];
    expect(JSON.parse(newKeys.limit)).toEqual(limit);
    const error = newKeys.refusal([NOW, 1_000_000, NOW + 5_000]);
    expect(error).toMatchObject({
      code: 'RATE_LIMITED',
      message: 'Rate limit exceeded: 1000000 new idempotency keys per hour (idempotency_keys_per_hour).',
      retryAfterMs: 5_000,
      fields: { resets_at: new Date(NOW + 5_000).toISOString() },
    });
    expect(newKeys.refusal([NOW, 1_000_000, NOW]).retryAfterMs).toBe(1_000);
    expect(await results()).toEqual({ RATE_LIMITED: 2 });
  });
});
