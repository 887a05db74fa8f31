import { createApp } from '../../src/http/app.ts';
import { acceptZodSchemas } from '../../src/http/route-docs.ts';
import { serviceGuard } from '../../src/http/services.ts';
import { registerUsageReportRoutes, type UsageReportDeps } from '../../src/http/usage-report-routes.ts';
import { registerUsageRoutes, type UsageRoutesDeps } from '../../src/http/usage-routes.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { require, type Target, Violation } from '../lib/target.ts';

const START = { sequence: 0, hash: '' };

/** An empty ledger: the parsers of its routes are the subject. */
const ledger = {
  read: async ({ limit }: { limit: number }) => {
    require(Number.isInteger(limit) && limit >= 1 && limit <= 1_000, 'a page has a size');
    return { records: [], end: START, hasMore: false, gapDetected: false };
  },
  head: async () => ({ head: START, trimmed: START }),
};
const windows = {
  read: async (hours: readonly string[]) => {
    require(hours.length >= 1 && hours.length <= 744, 'a range has at most a month');
    return [];
  },
  view: async () => ({ closed: [], open: undefined }),
};
const deps = {
  guard: serviceGuard(async () => ({ serviceId: 'fuzz', scopes: [] }) as never),
  tail: { full: false, beyond: async () => undefined },
  consumers: { list: async () => [], confirm: async () => 'confirmed', forget: async () => false },
  tallies: { query: async () => [] },
  corrections: { record: async () => ({ outcome: 'missing' }) },
  verifier: { verify: async () => ({}) },
  ...{ ledger, windows, clock: systemClock },
} as unknown as UsageRoutesDeps & UsageReportDeps;

const app = createApp({ logger: createLogger('fuzz', 'silent'), trustedProxyHops: 0 });
acceptZodSchemas(app);
registerUsageRoutes(app, deps);
registerUsageReportRoutes(app, deps);

interface Sent {
  readonly method: 'GET' | 'POST' | 'PUT';
  readonly url: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Sends a request, and throws its error as that of the table. */
async function send({ method, url, body, headers }: Sent): Promise<void> {
  const request = {
    method,
    url,
    ...(body === undefined ? {} : { payload: body }),
    headers: { host: 'gateway', ...headers },
  };
  const { statusCode, body: answer } = await app.inject(request);
  require(statusCode < 500 || statusCode === 503, `input is no fault of the gateway: ${statusCode} ${answer}`);
  if (statusCode < 400) return;
  const { code, message } = (JSON.parse(answer) as { error: { code: string; message: string } }).error;
  if (code === 'INTERNAL_ERROR') throw new Violation(`an error names its cause: ${answer}`);
  require(!/node_modules|\/src\/|at \w+ \(/.test(message), 'an error shows no code');
  throw new TollgateError('FORMAT_ERROR', { text: message });
}

const query: Target = {
  name: 'usage-query',
  seeds: [
    'records?cursor=0&limit=10&wait=0&user_id=u&tool=t',
    'tallies?from=2026-11-20T10&to=2026-11-21&group_by=user,tool',
    'windows?from=2026-11-20T10:00:00.000Z&to=2026-11-20T11Z',
    'export?format=cloudevents&window=2026-11-20T10&revision=1',
    'verify?from=2026-11-20',
    'cursors',
  ],
  words: [
    'cursor=',
    'limit=',
    'wait=',
    'user_id=',
    'tool=',
    'from=',
    'to=',
    'group_by=',
    'format=',
    'window=',
    '&',
    '%',
    '2026-11-20T10',
    '1e3',
    '0x10',
    '[]',
    '[a]=',
  ],
  maxBytes: 8_192,
  run: (input) => send({ method: 'GET', url: `/v1/usage/${printable(input)}` }),
};

const correction: Target = {
  name: 'usage-body',
  seeds: ['{"record_id":"use_1","sequence":1,"units":-10,"reason":"Wrong."}', '{"cursor":"0"}'],
  words: ['record_id', 'sequence', 'units', 'reason', 'cursor', '1e9', '-0'],
  async run(input) {
    const body = input.toString('utf8');
    const headers = { 'content-type': 'application/json', 'idempotency-key': 'k' };
    const outcomes = await Promise.allSettled([
      send({ method: 'POST', url: '/v1/usage/corrections', body, headers }),
      send({ method: 'PUT', url: '/v1/usage/cursors/erp', body, headers }),
    ]);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  },
};

/** Node's parser refuses other characters in a request target. */
function printable(input: Buffer): string {
  return input.toString('latin1').replace(/[^\x21-\x7e]/g, '');
}

export const USAGE_TARGETS: readonly Target[] = [query, correction];
