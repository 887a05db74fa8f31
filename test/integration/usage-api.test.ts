import { beforeAll, describe, expect, it } from '@jest/globals';
import { createLogger } from '../../src/lib/logger.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys, partitionOf } from '../../src/redis/keys.ts';
import { runToEnd } from '../support/agent-runs.ts';
import { openClient } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { closeAfter } from '../support/open-resources.ts';
import { useStack } from '../support/stack.ts';
import { freshUserId, mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into JSON whose form they are about to assert
type Json = any;

/** A private stack, because windows and cursors concern the whole ledger. */
const stack = useStack({ gateways: 2 });
let redis: Redis;
let keys: Keys;
let read: string;
let write: string;

beforeAll(async () => {
  const { redisUrl, keyPrefix } = stack().addresses;
  redis = await connectRedis(redisUrl, 'commands', createLogger('test', 'silent'));
  closeAfter('file', () => disconnectRedis(redis));
  keys = new Keys(keyPrefix);
  read = await serviceToken('usage:read', { stack: stack().addresses });
  write = await serviceToken('usage:read usage:write', { stack: stack().addresses });
});

interface Call {
  readonly method?: string;
  readonly token?: string;
  readonly accept?: string;
  readonly body?: unknown;
  readonly key?: string;
  readonly node?: number;
}

async function call(path: string, { method = 'GET', token = read, accept, body, key, node = 0 }: Call = {}) {
  const headers = {
    authorization: `Bearer ${token}`,
    ...(accept ? { accept } : {}),
    ...(key ? { 'idempotency-key': key } : {}),
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
  };
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const response = await fetch(new URL(path, stack().addresses.gateways[node]?.url), { method, headers, ...sent });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, json: () => JSON.parse(text) as Json };
}

/** Runs an agent as a fresh user; then the ledger has its records. */
async function usedBy(plan: 'free' | 'pro' | 'enterprise', message: string, records: number) {
  const of = stack().addresses;
  const { token, userId } = mintToken({ plan }, { stack: of });
  const client = await openClient({ token, url: of.gateways[0]?.url ?? '' });
  await runToEnd(client, { message });
  await until(async () => (await billedRecords(userId, of)).length >= records, {
    timeoutMs: 15_000,
    label: 'the records',
  });
  return { userId, records: await billedRecords(userId, of) };
}

const code = ({ json }: { json: () => Json }) => json().error?.code;

describe('the usage routes', () => {
  const ROUTES = [
    ['GET', '/v1/usage/records', 'usage:write'],
    ['GET', '/v1/usage/tallies', 'usage:write'],
    ['GET', '/v1/usage/windows', 'usage:write'],
    ['GET', '/v1/usage/export?format=lago&window=2026-01-01T00', 'usage:write'],
    ['GET', '/v1/usage/verify', 'usage:write'],
    ['GET', '/v1/usage/cursors', 'usage:write'],
    ['PUT', '/v1/usage/cursors/erp', 'usage:write'],
    ['DELETE', '/v1/usage/cursors/erp', 'usage:read'],
    ['POST', '/v1/usage/corrections', 'usage:read'],
  ] as const;

  it.each(ROUTES)(
    '%s %s is closed to strangers, users, and services with the scope %s alone',
    async (method, path, scope) => {
      const other = await serviceToken(scope, { stack: stack().addresses });
      const user = mintToken({ plan: 'developer' }, { stack: stack().addresses }).token;
      const url = new URL(path, stack().addresses.gateways[0]?.url);
      const stranger = await fetch(url, { method });
      expect([stranger.status, ((await stranger.json()) as Json).error.code]).toEqual([401, 'NO_TOKEN']);
      expect(code(await call(path, { method, token: user }))).toBe('VALIDATION_FAILED');
      expect(code(await call(path, { method, token: other }))).toBe('PERMISSION_DENIED');
    },
  );

  it.each([
    ['/v1/usage/tallies?group_by=colour', 400, 'FORMAT_ERROR'],
    ['/v1/usage/tallies?from=yesterday', 400, 'FORMAT_ERROR'],
    ['/v1/usage/windows?from=2026-02-30', 400, 'FORMAT_ERROR'],
    ['/v1/usage/windows?from=2026-01-01T10:30', 400, 'FORMAT_ERROR'],
    ['/v1/usage/windows?from=2026-01-02&to=2026-01-02', 400, 'FORMAT_ERROR'],
    ['/v1/usage/windows?from=2026-01-01&to=2026-03-01', 400, 'FORMAT_ERROR'],
    ['/v1/usage/export?format=xls&window=2026-01-01T00', 400, 'FORMAT_ERROR'],
    ['/v1/usage/export?format=lago', 400, 'FORMAT_ERROR'],
    ['/v1/usage/export?format=lago&window=2026-01-01T00', 404, 'WINDOW_NOT_FOUND'],
  ])('answers %s with %i %s', async (path, status, expected) => {
    const answer = await call(path);
    expect([answer.status, code(answer)]).toEqual([status, expected]);
  });

  it('says in a refusal which field is wrong', async () => {
    expect((await call('/v1/usage/records?limit=1001')).json().error.message).toContain('limit');
  });
});

describe('the feed', () => {
  it('B90 is read page by page with opaque cursors, on any node, to the same records and the same bytes', async () => {
    const { userId, records } = await usedBy('pro', 'How is my workload doing?', 1);
    expect(records.length).toBeGreaterThan(0);
    const pages: string[][] = [[], []];
    for (const node of [0, 1]) {
      for (let cursor = '', more = true; more; ) {
        const { text, json } = await call(`/v1/usage/records?limit=1&cursor=${cursor}`, { node });
        pages[node]?.push(text);
        cursor = json().next_cursor;
        expect(cursor).not.toMatch(/^\d*$/);
        more = json().has_more;
      }
    }
    expect(pages[0]).toEqual(pages[1]);
    const read = (pages[0] ?? []).flatMap((text) => JSON.parse(text).records) as Json[];
    expect(read.map(({ sequence }) => sequence)).toEqual(read.map((_, at) => at + 1));
    expect(read.filter(({ user_id }) => user_id === userId)).toEqual(records);
  });

  it('comes as lines or as a batch of CloudEvents, with the same cursor', async () => {
    await usedBy('pro', 'hello', 1);
    const json = (await call('/v1/usage/records')).json();
    const lines = await call('/v1/usage/records', { accept: 'application/x-ndjson' });
    const batch = await call('/v1/usage/records', { accept: 'application/cloudevents-batch+json' });
    expect(batch.headers.get('content-type')).toContain('application/cloudevents-batch+json');
    expect(
      lines.text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(json.records);
    expect(batch.json().map(({ data }: Json) => data)).toEqual(json.records);
    for (const { headers } of [lines, batch]) {
      expect(headers.get('x-next-cursor')).toBe(json.next_cursor);
      expect(headers.get('x-gap-detected')).toBe('false');
      expect(headers.get('vary')).toContain('Accept');
    }
  });
});

describe('the records, newest first', () => {
  it('are all of those of the feed, over all pages, and only those of the time that is asked for', async () => {
    const { userId, records } = await usedBy('pro', 'How is my workload doing?', 1);
    await usedBy('pro', 'Is the system healthy?', 1);
    const feed = (await call('/v1/usage/records?limit=1000')).json().records as Json[];
    const found: Json[] = [];
    for (let cursor = '', more = true; more && found.length <= feed.length; ) {
      const page = (await call(`/v1/usage/records?order=desc&limit=2&cursor=${cursor}`)).json();
      found.push(...page.records);
      [cursor, more] = [page.next_cursor, page.has_more];
    }
    expect(found).toEqual(feed.toReversed());
    const at = String(records[0]?.completed_at);
    const after = new Date(Date.parse(at) + 1).toISOString();
    for (const order of ['asc', 'desc']) {
      const of = (query: string) => call(`/v1/usage/records?order=${order}&user_id=${userId}&${query}`);
      expect((await of(`from=${at}`)).json().records.map(({ id }: Json) => id)).toContain(records[0]?.id);
      expect((await of(`to=${at}`)).json().records).toEqual([]);
      const later = (await of(`from=${after}`)).json().records as Json[];
      expect(later.every(({ completed_at }) => completed_at >= after)).toBe(true);
    }
    expect(code(await call('/v1/usage/records?from=yesterday'))).toBe('FORMAT_ERROR');
  });
});

describe('a bill', () => {
  it('of a consumer that crashes at random, and reads again from what it had kept, adds up to the same sum', async () => {
    const users = await Promise.all([
      usedBy('pro', 'How is my workload doing?', 1),
      usedBy('enterprise', 'Is the system healthy?', 1),
      usedBy('pro', 'Start a thread called "x"', 1),
    ]);
    const whole = (await call('/v1/usage/records?limit=1000')).json().records as Json[];
    const kept = { cursor: '', units: 0, ids: [] as string[] };
    for (let attempt = 0; kept.ids.length < whole.length; attempt++) {
      expect(attempt).toBeLessThan(1_000);
      const { records, next_cursor, gap_detected } = (
        await call(`/v1/usage/records?limit=2&cursor=${kept.cursor}`)
      ).json();
      expect(gap_detected).toBe(false);
      if (Math.random() < 0.4) continue;
      // Stored together, as a consumer does in one transaction.
      kept.cursor = next_cursor;
      kept.units += records.reduce((sum: number, { units }: Json) => sum + units, 0);
      kept.ids.push(...records.map(({ id }: Json) => id));
    }
    expect(new Set(kept.ids).size).toBe(whole.length);
    expect(kept.units).toBe(whole.reduce((sum, { units }) => sum + units, 0));
    for (const { records } of users) for (const { id } of records) expect(kept.ids).toContain(id);
  });
});

describe('B93 what was used', () => {
  it('is in the tallies by user, tool and plan exactly once, with refusals for a missing permission', async () => {
    const { userId } = await usedBy('free', 'How is my workload doing?', 1);
    const answer = await call(`/v1/usage/tallies?user_id=${userId}&group_by=tool,plan`);
    const { tallies, group_by } = answer.json();
    expect([answer.status, group_by]).toEqual([200, ['tool', 'plan']]);
    const refused = tallies.find(({ tool }: Json) => tool === 'analyze_workload');
    expect(refused).toMatchObject({ plan: 'free', executions: 0, units: 0, refusals: 1 });
    const records = await billedRecords(userId, stack().addresses);
    const total = (await call(`/v1/usage/tallies?user_id=${userId}`)).json().tallies[0];
    expect(total).toMatchObject({ executions: records.length, refusals: 1 });
    expect(records.some(({ tool }) => tool === 'analyze_workload')).toBe(false);
  });
});

/** Closes the hour of the records while it continues, by putting its closing time into the past. */
async function closedHour(): Promise<{ window: string; revision: number }> {
  const { userId, records } = await usedBy('pro', 'How is my workload doing?', 1);
  expect(userId).toBeDefined();
  const window = String(records[0]?.period);
  await redis.zadd(keys.openWindows, 1, window);
  const closed = async () => {
    const { windows } = (await call(`/v1/usage/windows?from=${window}`)).json();
    return windows.filter((w: Json) => w.status === 'closed' && w.last_sequence >= Number(records[0]?.sequence)).at(-1);
  };
  const { revision } = await until(closed, { timeoutMs: 20_000, label: 'the closed window' });
  return { window, revision };
}

describe('a closed window', () => {
  it('is exported for each system, as often as one likes with the same bytes; an open one is not', async () => {
    const { window, revision } = await closedHour();
    for (const format of ['cloudevents', 'stripe', 'openmeter', 'lago']) {
      const path = `/v1/usage/export?format=${format}&window=${window}&revision=${revision}`;
      const [first, second] = [await call(path), await call(path, { node: 1 })];
      expect([first.status, second.text]).toEqual([200, first.text]);
      expect(first.headers.get('x-window-sha256')).toMatch(/^[0-9a-f]{64}$/);
    }
    const batch = await call(`/v1/usage/export?format=cloudevents&window=${window}&revision=${revision}`);
    expect(batch.json()).toHaveLength(Number(batch.headers.get('x-record-count')));
    await usedBy('pro', 'hello', 1);
    const open = await call(`/v1/usage/export?format=lago&window=${window}&revision=${revision + 1}`);
    expect([open.status, code(open)]).toEqual([409, 'WINDOW_NOT_CLOSED']);
  });

  it('whose records are not those it was closed with is never exported as if it were whole', async () => {
    const { window, revision } = await closedHour();
    const closed = JSON.parse((await redis.hget(keys.window(window), `r${revision}`)) ?? '{}') as Json;
    const id = `${closed.last_sequence}-0`;
    const [[, fields] = ['', []]] = await redis.xrange(keys.ledger, id, id);
    await redis.hset(keys.window(window), `r${revision}`, JSON.stringify({ ...closed, sha256: 'f'.repeat(64) }));
    const path = `/v1/usage/export?format=cloudevents&window=${window}&revision=${revision}`;
    const outcome = await call(path).then(
      ({ status, json }) => (status === 200 ? json() : status),
      () => 'cut off',
    );
    expect([500, 'cut off']).toContain(outcome);
    expect(fields.length).toBeGreaterThan(0);
    await redis.hset(keys.window(window), `r${revision}`, JSON.stringify(closed));
    expect((await call(path)).status).toBe(200);
  });
});

describe('a correction', () => {
  it('is made once for its key, refused for another body, and shown in the feed', async () => {
    const { records } = await usedBy('pro', 'How is my workload doing?', 1);
    const record = records.find(({ units }) => Number(units) > 0);
    const body = { record_id: record?.id, sequence: record?.sequence, units: -1, reason: 'test' };
    const post = (changes = {}, key = `key-${record?.id}`) =>
      call('/v1/usage/corrections', { method: 'POST', token: write, key, body: { ...body, ...changes } });
    const [first, again] = await Promise.all([post(), post()]);
    expect([first.status, again.status, again.text]).toEqual([201, 201, first.text]);
    expect(first.json().correction).toMatchObject({ corrects: record?.id, units: -1, reason: 'test' });
    const conflict = await post({ units: -2 });
    expect([conflict.status, code(conflict)]).toEqual([422, 'IDEMPOTENCY_CONFLICT']);
    expect(code(await post({ sequence: 999_999 }, 'other'))).toBe('RECORD_NOT_FOUND');
    expect((await post({ units: -1_000 }, 'another')).json().error).toMatchObject({
      code: 'FORMAT_ERROR',
      units_left: 4,
    });
    for (const wrong of [{ units: 0 }, { units: 0.5 }, { reason: '' }, { extra: 1 }]) {
      expect([(await post(wrong, 'third')).status]).toEqual([400]);
    }
    const keyless = await call('/v1/usage/corrections', { method: 'POST', token: write, body });
    expect([keyless.status, code(keyless)]).toEqual([400, 'FORMAT_ERROR']);
    const inFeed = async () =>
      (await billedRecords(String(record?.user_id), stack().addresses)).filter(
        ({ corrects }) => corrects === record?.id,
      );
    expect(await until(async () => (await inFeed()).length > 0, { timeoutMs: 10_000 })).toBe(true);
    expect(await inFeed()).toMatchObject([{ id: first.json().correction.id, units: -1 }]);
  });
});

describe('cursors', () => {
  it('are confirmed by the service that named them, listed, and forgotten by one that may write', async () => {
    await usedBy('pro', 'hello', 1);
    const { next_cursor } = (await call('/v1/usage/records?limit=1')).json();
    const put = (token: string, cursor = next_cursor) =>
      call('/v1/usage/cursors/erp', { method: 'PUT', token, body: { cursor } });
    const confirmed = await put(read);
    expect([confirmed.status, confirmed.json()]).toEqual([200, { consumer: 'erp', sequence: 1 }]);
    const other = await serviceToken('usage:read', { clientId: 'someone-else', stack: stack().addresses });
    expect((await put(other)).status).toBe(403);
    expect((await put(read, 'x')).status).toBe(400);
    expect((await call('/v1/usage/cursors')).json().consumers).toMatchObject([{ consumer: 'erp', sequence: 1 }]);
    expect((await call('/v1/usage/cursors/erp', { method: 'DELETE', token: write })).status).toBe(204);
    expect((await call('/v1/usage/cursors/erp', { method: 'DELETE', token: write })).status).toBe(404);
    expect((await call('/v1/usage/cursors')).json().consumers).toEqual([]);
  });
});

describe('verify', () => {
  it('succeeds over the records of real runs, and names a changed record', async () => {
    const { records } = await usedBy('pro', 'How is my workload doing?', 1);
    const clean = async () => {
      const answer = (await call('/v1/usage/verify')).json();
      expect(answer.problem).toBeNull();
      return answer.unsettled.length === 0 && answer.checked_records > 0;
    };
    await until(clean, { timeoutMs: 10_000 });
    const { sequence, id } = records[0] ?? { sequence: 0, id: '' };
    const entries = await redis.xrange(keys.ledger, '-', '+');
    await redis.del(keys.ledger);
    for (const [entryId, [, json = '', , appended = '']] of entries) {
      const changed = entryId === `${sequence}-0` ? json.replace('"units":5', '"units":4') : json;
      await redis.xadd(keys.ledger, entryId, 'r', changed, 'a', appended);
    }
    expect((await call('/v1/usage/verify')).json()).toMatchObject({
      ok: false,
      problem: { kind: 'chain', sequence, record_id: id },
    });
  });
});

describe('/openapi.json and /docs', () => {
  it('describe every usage route with what it takes and answers, and load from this server alone', async () => {
    const { status, json } = await call('/openapi.json');
    expect(status).toBe(200);
    const { paths, openapi } = json();
    expect(openapi).toBe('3.1.0');
    for (const [path, method] of [
      ['/v1/usage/records', 'get'],
      ['/v1/usage/tallies', 'get'],
      ['/v1/usage/windows', 'get'],
      ['/v1/usage/export', 'get'],
      ['/v1/usage/verify', 'get'],
      ['/v1/usage/corrections', 'post'],
      ['/v1/usage/cursors/{consumer}', 'put'],
    ] as const) {
      expect(paths[path]?.[method]).toMatchObject({
        summary: expect.any(String),
        security: [{ service: [expect.stringMatching(/^usage:/)] }],
      });
    }
    const limit = paths['/v1/usage/records'].get.parameters.find(({ name }: Json) => name === 'limit');
    expect(limit).toMatchObject({ in: 'query', schema: { minimum: 1, maximum: 1000 } });
    const page = await fetch(new URL('/docs/', stack().addresses.gateways[0]?.url));
    expect(page.status).toBe(200);
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'self'");
    expect(policy).not.toMatch(/https:|unsafe|upgrade-insecure/);
    const html = await page.text();
    const loaded = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, url]) => url ?? '');
    expect(loaded.length).toBeGreaterThan(2);
    for (const url of loaded) {
      expect(url).not.toMatch(/^(https?:)?\/\//);
      expect((await fetch(new URL(url, page.url))).status).toBe(200);
    }
  });
});

describe('a worker that dies', () => {
  it('leaves a ledger that another worker continues: nothing is lost or duplicated', async () => {
    const of = stack().addresses;
    const users = Array.from({ length: 300 }, () => freshUserId());
    const before = (await billedRecords(undefined, of)).length;
    const worker = stack().workers[0];
    for (const [at, userId] of users.entries()) {
      const record = {
        id: `usage_k${at}`,
        user_id: userId,
        plan: 'pro',
        tool: 't',
        units: 1,
        duration_ms: 1,
        status: 'success',
      };
      const json = JSON.stringify({ ...record, period: '2026-03-01T10' });
      await redis.xadd(keys.outbox(partitionOf(userId)), '*', 'r', json);
      if (at % 100 === 50) {
        await worker?.kill();
        await worker?.start();
      }
    }
    const added = async () =>
      (await billedRecords(undefined, of)).slice(before).filter(({ id }) => id.startsWith('usage_k'));
    await until(async () => (await added()).length >= users.length, { timeoutMs: 30_000, label: 'all of them' });
    expect(new Set((await added()).map(({ id }) => id)).size).toBe(users.length);
    expect(await added()).toHaveLength(users.length);
  }, 60_000);
});
