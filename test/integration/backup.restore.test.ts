import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, it } from '@jest/globals';
import { Redis } from 'ioredis';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { openClient } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type PostgresServer, query, startPostgres } from '../support/postgres.ts';
import { describeWith, POSTGRES } from '../support/programs.ts';
import { type StackAddresses, StackProcesses } from '../support/stack-processes.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

const run = promisify(execFile);
const TIMEOUT = { timeoutMs: 20_000 };
/** Calls before and after the copy of Redis. */
const COPIED = 4;
const LATER = 3;

function postgresTool(name: string): string {
  return POSTGRES.command.replace(/postgres$/, name);
}

async function newFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'tollgate-restore-'));
  closeAfter('file', () => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** A Redis with an append-only file; with `copy`, it begins with that RDB file, as docs/day-two.md describes. */
async function redisFrom(copy?: string): Promise<string> {
  const dir = await newFolder();
  if (copy !== undefined) {
    await copyFile(copy, join(dir, 'dump.rdb'));
    const loader = await startRedisServer({ dir });
    await ask(loader.url, async (redis) => {
      await redis.config('SET', 'appendonly', 'yes');
      const rewritten = async () =>
        /aof_rewrite_in_progress:0[\s\S]*aof_base_size/.test(await redis.info('persistence'));
      await until(rewritten, { ...TIMEOUT, label: 'an append-only file with the contents of the copy' });
    });
    await loader.stop();
  }
  const server = await startRedisServer({ dir, persistent: true });
  closeAfter('file', () => server.stop());
  return server.url;
}

async function ask<T>(url: string, question: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url);
  try {
    return await question(redis);
  } finally {
    redis.disconnect();
  }
}

async function verify(of: StackAddresses): Promise<unknown> {
  const token = await serviceToken('usage:read', { stack: of });
  const headers = { authorization: `Bearer ${token}` };
  return (await fetch(`${of.gateways[0]?.url}/v1/usage/verify`, { headers })).json();
}

describeWith(POSTGRES, 'a deployment restored from its copies', () => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres();
  }, 60_000);

  it('has every record of the archive, verifies, and lets no client resume from events it lost', async () => {
    const archiveUrl = await postgres.newSchema();
    const schema = /search_path(?:%3D|=)(\w+)/.exec(archiveUrl)?.[1] ?? '';
    const database = archiveUrl.split('?')[0] ?? '';
    const archived = async () =>
      (await query<{ id: string }>(archiveUrl, 'SELECT id FROM usage_records ORDER BY sequence')).map(({ id }) => id);
    const files = await newFolder();

    const before = await StackProcesses.start({ redisUrl: await redisFrom(), env: { USAGE_ARCHIVE_URL: archiveUrl } });
    closeAfter('file', () => before.close());
    const { keyPrefix, secrets, redisUrl } = before.addresses;
    const { token } = mintToken({ plan: 'enterprise' }, { stack: before.addresses });
    const client = await openClient({ token, url: before.addresses.gateways[0]?.url ?? '' });
    const { epoch } = await client.welcome();
    for (let call = 0; call < COPIED; call++) await callTool(client, 'create_thread', { title: `Thread ${call}` });
    await run('redis-cli', ['-u', redisUrl, '--rdb', join(files, 'copy.rdb')]);
    for (let call = 0; call < LATER; call++) await callTool(client, 'create_thread', { title: `Later ${call}` });
    await until(async () => (await archived()).length === COPIED + LATER, TIMEOUT);
    const billed = await billedRecords(undefined, before.addresses);
    const after = Math.max(...client.events.map(({ fields }) => Number(fields.seq ?? 0)));
    await client.close();
    await before.close();

    await run(postgresTool('pg_dump'), ['-Fc', '-n', schema, '-f', join(files, 'archive.dump'), database]);
    await query(archiveUrl, `DROP SCHEMA ${schema} CASCADE`);
    await run(postgresTool('pg_restore'), ['-d', database, join(files, 'archive.dump')]);
    const restored = await redisFrom(join(files, 'copy.rdb'));
    const env = { REDIS_KEY_PREFIX: keyPrefix, JWT_SECRET_KEY: secrets.jwt, SERVICE_SECRET: secrets.service };
    const variables = { ...env, REDIS_URL: restored, AUTH_SERVICE_URL: before.addresses.authUrl };
    const renewed = await run(process.execPath, ['src/renew-epochs.ts'], { env: { ...process.env, ...variables } });
    expect(renewed.stdout).toBe('1 event logs have a new epoch\n');

    const now = await StackProcesses.start({ redisUrl: restored, env: { ...env, USAGE_ARCHIVE_URL: archiveUrl } });
    closeAfter('file', () => now.close());
    await until(async () => (await billedRecords(undefined, now.addresses)).length === COPIED + LATER, TIMEOUT);
    expect(await billedRecords(undefined, now.addresses)).toEqual(billed);
    const clean = { ok: true, archive: 'compared', archived_records: COPIED + LATER, checked_records: COPIED + LATER };
    expect(await verify(now.addresses)).toMatchObject(clean);

    const again = mintToken({ plan: 'enterprise', sub: String(billed[0]?.user_id) }, { stack: now.addresses });
    const resuming = await openClient({ token: again.token, url: now.addresses.gateways[0]?.url ?? '' });
    const welcome = await resuming.welcome();
    expect(welcome.epoch).not.toBe(epoch);
    expect(Number(welcome.seq)).toBeLessThan(after);
    // The log grows past the position of the client, so that its length alone does not reveal the loss.
    for (let call = 0; call <= LATER; call++) await callTool(resuming, 'create_thread', { title: `New ${call}` });
    resuming.send('resume', { after, epoch });
    expect((await resuming.waitFor('resume_failed')).fields).toMatchObject({ reason: 'epoch_changed' });
  }, 60_000);
});
