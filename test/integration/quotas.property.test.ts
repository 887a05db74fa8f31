import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type Core, startCore } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';

/** `npm run faults` sets more. */
const RUNS = Number(process.env.QUOTA_RUNS ?? 60);

/** The functions of the scripts with a given time, so that hours pass in milliseconds. */
const SCRIPT = `
${readFileSync(new URL('../../src/redis/lua/include/quotas.lua', import.meta.url), 'utf8')}
local now, request = tonumber(ARGV[1]), cjson.decode(ARGV[3])
if ARGV[2] == 'reserve' then
  local allowed, second, third = reserve(KEYS[1], KEYS[2], request, now)
  if allowed then return { 1, unpack(second) } end
  return { 0, second, unpack(third) }
end
redis.call('ZREM', KEYS[2], request.member)
if ARGV[2] == 'settle' then commitUse(KEYS[1], request, now) end
return {}`;

const HOUR = { windowMs: 3_600_000, bucketMs: 300_000 };
const DAY = { windowMs: 86_400_000, bucketMs: 3_600_000 };
const LIMITS = [
  { field: 'p_per_hour', scope: 'permission:p', max: 3, ...HOUR },
  { field: 'p_per_day', scope: 'permission:p', max: 6, ...DAY },
  { field: 'a_per_day', scope: 'tool:a', max: 4, ...DAY },
];
type Limit = (typeof LIMITS)[number];
type Request = Readonly<Record<string, unknown>> & { readonly limits: readonly Limit[] };
/** Returns a limit as include/quotas.lua reads it. */
const argumentOf = ({ field, scope, max, windowMs, bucketMs }: Limit) => [field, scope, max, windowMs, bucketMs];
const CONCURRENCY = 3;
const RESERVATION_MS = 35_000;
/** Not the start of a bucket. */
const EPOCH = Date.parse('2026-03-04T12:34:56.789Z');

type Step =
  | { readonly kind: 'call'; readonly tool: 'a' | 'b' }
  | { readonly kind: 'settle' | 'release'; readonly which: number }
  | { readonly kind: 'pass'; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('call' as const), tool: fc.constantFrom('a' as const, 'b' as const) }),
  },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('settle' as const), which: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('release' as const), which: fc.nat(5) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('pass' as const),
      // Within a bucket, over the life of a reservation, over a bucket, over an hour, to the edge of windows, over a
      // day.
      ms: fc.constantFrom(1, 1_000, RESERVATION_MS, 299_999, 300_000, 1_800_000, 3_600_000, 6 * 3_600_000, 86_400_000),
    }),
  },
);

interface ModelReservation {
  readonly member: string;
  readonly tool: string;
  readonly deadline: number;
}

/** A model of the limits that keeps a list of all events. */
class Model {
  now = EPOCH;
  readonly uses: { readonly tool: string; readonly at: number }[] = [];
  reservations: ModelReservation[] = [];
  /** Commits after the expiry of their reservation, which no limit could take into account. */
  late = 0;

  limitsOf(tool: string): Limit[] {
    return LIMITS.filter(({ scope }) => scope !== 'tool:a' || tool === 'a');
  }

  used(limit: Limit): number {
    const counts = (tool: string) => limit.scope === 'permission:p' || limit.scope === `tool:${tool}`;
    const first = Math.floor((this.now - limit.windowMs) / limit.bucketMs);
    const settled = this.uses.filter(({ tool, at }) => counts(tool) && Math.floor(at / limit.bucketMs) >= first);
    return settled.length + this.live().filter(({ tool }) => counts(tool)).length;
  }

  /** Returns the uses within exactly the window. */
  within({ scope, windowMs }: Limit): number {
    return this.uses.filter(({ tool, at }) => {
      return at > this.now - windowMs && (scope === 'permission:p' || scope === `tool:${tool}`);
    }).length;
  }

  live(): ModelReservation[] {
    return this.reservations.filter(({ deadline }) => deadline > this.now);
  }
}

let core: Core;
beforeAll(async () => {
  core = await startCore();
});

describe('quotas', () => {
  it(`B88 B91 B94 agree with a list of everything that happened, whatever happens in whatever order (${RUNS} runs)`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
        const { quota, reservations } = core.keys.user(freshUserId());
        const model = new Model();
        const run = async (what: string, request: Request) => {
          return (await core.redis.eval(
            SCRIPT,
            2,
            quota,
            reservations,
            model.now,
            what,
            JSON.stringify({ ...request, limits: request.limits.map(argumentOf) }),
          )) as number[];
        };
        let calls = 0;
        for (const one of steps) {
          if (one.kind === 'pass') model.now += one.ms;
          else if (one.kind === 'call') {
            const limits = model.limitsOf(one.tool);
            const member = `call_${++calls} ${one.tool} p`;
            const request = { member, concurrency: CONCURRENCY, forMs: RESERVATION_MS, limits };
            const before = limits.map((limit) => model.used(limit));
            const allowed = model.live().length < CONCURRENCY && limits.every(({ max }, at) => (before[at] ?? 0) < max);
            const [result, ...rest] = await run('reserve', request);
            expect(result).toBe(allowed ? 1 : 0);
            const status = allowed ? rest : rest.slice(1);
            expect(status.filter((_, at) => at % 2 === 0)).toEqual(before.map((used) => used + (allowed ? 1 : 0)));
            if (allowed) model.reservations.push({ member, tool: one.tool, deadline: model.now + RESERVATION_MS });
          } else {
            const reservation = model.reservations[one.which];
            if (!reservation) continue;
            model.reservations = model.reservations.filter((other) => other !== reservation);
            const period = {
              day: new Date(model.now).toISOString().slice(0, 10),
              month: new Date(model.now).toISOString().slice(0, 7),
            };
            await run(one.kind, {
              member: reservation.member,
              limits: model.limitsOf(reservation.tool),
              units: 2,
              ...period,
            });
            // A call whose reservation expired may still be committed: it ran and counts, even above the limit.
            if (one.kind === 'settle') model.uses.push({ tool: reservation.tool, at: model.now });
            if (one.kind === 'settle' && reservation.deadline <= model.now) model.late += 1;
          }
          for (const limit of LIMITS) expect(model.within(limit)).toBeLessThanOrEqual(limit.max + model.late);
        }
        const stored = await core.redis.hgetall(quota);
        for (const { field, windowMs, bucketMs } of LIMITS) {
          const buckets = (stored[field] ?? '').split(' ').length / 2;
          expect(buckets).toBeLessThanOrEqual(windowMs / bucketMs + 1);
        }
      }),
      { numRuns: RUNS },
    );
  }, 120_000);
});
