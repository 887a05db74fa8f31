import { beforeAll, describe, expect, it } from '@jest/globals';
import { loadAgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { Runs } from '../../src/runs/runs.ts';
import { StreamRunQueue } from '../../src/runs/stream-run-queue.ts';
import { UsageArchive } from '../../src/usage/archive/archive.ts';
import { ArchiveDatabase } from '../../src/usage/archive/database.ts';
import { type Admin, startAdmin } from '../support/admin.ts';
import { runToEnd } from '../support/agent-runs.ts';
import { openClient } from '../support/clients.ts';
import { NO_QUEUE, silentLogger } from '../support/core.ts';
import { erasureFixture, everythingUnder } from '../support/erasure.ts';
import { billedRecords } from '../support/ledger.ts';
import { requestLegacy } from '../support/mcp.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type PostgresServer, query, startPostgres } from '../support/postgres.ts';
import { isInstalled, POSTGRES } from '../support/programs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { buyTicket } from '../support/tickets.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

const LONG_WAIT = { timeoutMs: 20_000 };
const CANARY = 'canary-of-a-message';
const TABLES = ['usage_records', 'usage_records_superseded', 'usage_windows', 'usage_hours', 'usage_archive'];

let processes: StackProcesses;
let postgres: PostgresServer | undefined;
let archiveUrl: string | undefined;
let redis: Redis;
let keys: Keys;
let admin: Admin;
let erasing: ReturnType<typeof erasureFixture>;
const lines: string[] = [];

beforeAll(async () => {
  postgres = isInstalled(POSTGRES) ? await startPostgres() : undefined;
  archiveUrl = await postgres?.newSchema();
  const env = archiveUrl === undefined ? {} : { USAGE_ARCHIVE_URL: archiveUrl };
  processes = await startStack({
    gateways: 2,
    workers: 1,
    env: { LOG_LEVEL: 'info', ...env },
    onLine: (line) => lines.push(line),
  });
  const { redisUrl, keyPrefix } = processes.addresses;
  redis = await connectRedis(redisUrl, 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
  keys = new Keys(keyPrefix);
  admin = await startAdmin(processes.addresses);
  const runQueue = new StreamRunQueue({ redis, keys });
  const { plans } = new Catalogues();
  const runs = new Runs(
    {
      redis,
      keys,
      agents: loadAgentCatalogue(undefined),
      plans,
      queue: NO_QUEUE,
      clock: systemClock,
      tracing: NO_TRACING,
    },
    { timeoutMs: 45_000 },
  );
  const database =
    archiveUrl === undefined
      ? undefined
      : new ArchiveDatabase(archiveUrl, { logger: silentLogger }, { migrates: true });
  if (database) closeAfter('file', () => database.close());
  const archive = database && new UsageArchive(database);
  erasing = erasureFixture({ redis, keys, archive, runs, runQueue });
}, 60_000);

const node = (at: number) => processes.addresses.gateways[at]?.url ?? '';
const everything = async () => [...(await everythingUnder(redis, keys.prefix)).values()];

async function archived(): Promise<string[]> {
  const url = archiveUrl;
  if (url === undefined) return [];
  const rows = await Promise.all(
    TABLES.map((table) => query<{ t: string }>(url, `SELECT t::text AS t FROM ${table} t`)),
  );
  return rows.flat().map(({ t }) => t);
}

async function verify(): Promise<unknown> {
  const token = await serviceToken('usage:read', { stack: processes.addresses });
  const response = await fetch(new URL('/v1/usage/verify', node(0)), { headers: { authorization: `Bearer ${token}` } });
  return response.json();
}

/** Creates a user with data of every kind and open connections. */
async function live(name: string) {
  const minted = mintToken(
    { plan: 'enterprise', sub: name, email: `${name}@mail.test` },
    { stack: processes.addresses },
  );
  const { token } = minted;
  const client = await openClient({ token, url: node(0) });
  await client.welcome();
  const polling = await openClient({ token, url: node(1), transport: 'socketio' });
  await polling.welcome();
  await runToEnd(client, { message: `${CANARY} How is my workload doing?`, request_id: `${name}-request` });
  await callTool(client, 'create_thread', { title: `${CANARY} title` });
  await callTool(client, 'list_agents', {}, { idempotency_key: `${name}-key` });
  await callTool(client, 'no_such_tool');
  const mcp = await requestLegacy('tools/call', { name: 'analyze_workload', arguments: {} }, { token, url: node(1) });
  expect(mcp.status).toBe(200);
  await buyTicket(token, { url: node(0) });
  await admin('PUT', `/v1/users/${encodeURIComponent(name)}/plan`, { plan: 'enterprise' });
  return { ...minted, client, polling };
}

interface Line {
  readonly section: string;
  readonly id: string | null;
  readonly data: unknown;
  readonly lines?: number;
}

async function exported(name: string): Promise<Line[]> {
  const token = await serviceToken('admin', { stack: processes.addresses });
  const url = new URL(`/v1/users/${encodeURIComponent(name)}/data`, node(0));
  const response = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/x-ndjson']);
  const text = await response.text();
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
}

describe('a user', () => {
  it('is exported completely, then erased everywhere while connected, and the ledger still verifies', async () => {
    const name = 'user_of_a_full_life';
    const user = await live(name);
    const other = await live('user_who_stays');
    const mine = await until(async () => {
      const records = await billedRecords(name, processes.addresses);
      return records.length >= 4 && (!archiveUrl || (await archived()).some((row) => row.includes(name)))
        ? records
        : undefined;
    }, LONG_WAIT);
    const stays = await until(async () => {
      const records = await billedRecords('user_who_stays', processes.addresses);
      return records.length === mine.length ? records : undefined;
    }, LONG_WAIT);

    const lines_ = await exported(name);
    expect(lines_.at(-1)).toEqual({ section: 'end', lines: lines_.length - 1 });
    const sections = new Set(lines_.map(({ section }) => section));
    for (const section of [
      'account',
      'connections',
      'log',
      'thread',
      'threadInfo',
      'run',
      'request',
      'call',
      'quota',
    ]) {
      expect(sections).toContain(section);
    }
    for (const section of ['tokenSession', 'recentUsage', 'messageRate', 'ticketRate', 'usage_record', 'tally']) {
      expect(sections).toContain(section);
    }
    const text = JSON.stringify(lines_);
    expect(text).toContain(CANARY);
    expect(text).not.toContain('user_who_stays');
    expect(text).not.toContain(user.token);
    expect(lines_.filter(({ section }) => section === 'usage_record').map(({ data }) => data)).toEqual(mine);
    expect((await everything()).filter((entry) => entry.includes(name)).length).toBeGreaterThan(20);

    const { status, body } = await admin('DELETE', `/v1/users/${name}/data`);
    expect(status).toBe(202);
    expect(body).toMatchObject({ status: 'in_progress', requested_by: 'test-operator', finished_at: null });
    expect((await admin('DELETE', `/v1/users/${name}/data`, undefined, 1)).body.erasure_id).toBe(body.erasure_id);
    for (const client of [user.client, user.polling]) {
      expect((await client.waitFor('session_terminated')).fields).toMatchObject({ reason: 'blocked' });
      const closed = await client.closed;
      if (closed.code !== undefined) expect(closed.code).toBe(1008);
    }
    const refused = await openClient({ token: user.token, url: node(0) }).then((client) => client.closed);
    expect(refused.code).toBe(1008);
    await admin('POST', `/v1/users/${name}/unblock`);
    expect((await requestLegacy('tools/list', {}, { token: user.token, url: node(0) })).status).toBe(403);

    const done = await erasing.finish(body.erasure_id);
    expect(done.counts.records).toBe(mine.length);
    expect((await admin('GET', `/v1/erasures/${body.erasure_id}`)).body).toMatchObject({
      status: 'done',
      waiting_for: null,
    });
    await until(async () => !(await everything()).some((entry) => entry.includes(':ticket:')), { timeoutMs: 35_000 });

    const traces = [name, user.claims.email, user.claims.sid, user.claims.jti];
    const left = (await everything()).filter((entry) => traces.some((trace) => entry.includes(trace)));
    expect(left).toEqual([]);
    expect((await archived()).filter((row) => traces.some((trace) => row.includes(trace)))).toEqual([]);
    expect(lines.filter((line) => line.includes(name))).toEqual([]);
    expect(lines.some((line) => line.includes('erasure requested') && line.includes(body.erasure_id))).toBe(true);

    expect(JSON.stringify(await billedRecords('user_who_stays', processes.addresses))).toBe(JSON.stringify(stays));
    const under = await billedRecords(body.erasure_id, processes.addresses);
    expect(under.slice(0, mine.length).map(({ id, units, hash }) => [id, units, hash])).toEqual(
      mine.map(({ id, units, hash }) => [id, units, hash]),
    );
    await until(async () => ((await verify()) as { archive: string }).archive !== 'away', LONG_WAIT);
    expect(await verify()).toMatchObject({ ok: true, problem: null });
    other.client.send('ping');
    await other.client.waitFor('pong');

    const again = mintToken({ sub: name }, { stack: processes.addresses });
    const fresh = await openClient({ token: again.token, url: node(0) });
    expect(await fresh.welcome()).toMatchObject({ seq: 0 });
  }, 120_000);

  it('is exported and erased for services with the scope admin only, and by ids that are well formed', async () => {
    const billing = await startAdmin(processes.addresses, 'usage:read');
    for (const [method, path] of [
      ['GET', '/v1/users/user_x/data'],
      ['DELETE', '/v1/users/user_x/data'],
      ['GET', '/v1/erasures/erased_x'],
    ] as const) {
      expect((await billing(method, path)).status).toBe(403);
    }
    expect((await admin('DELETE', '/v1/users/a%20b/data')).status).toBe(400);
    expect((await admin('GET', '/v1/erasures/erased_x')).body.error.code).toBe('RECORD_NOT_FOUND');
  });

  it('who is not known is erased in no time, and leaves the state of that only', async () => {
    const { body } = await admin('DELETE', '/v1/users/user_nobody/data');
    expect(await erasing.finish(body.erasure_id)).toMatchObject({ counts: { records: 0, tally_rows: 0 } });
    expect((await everything()).filter((entry) => entry.includes('user_nobody'))).toEqual([]);
  });
});
