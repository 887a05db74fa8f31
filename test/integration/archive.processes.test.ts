import { beforeAll, expect, it } from '@jest/globals';
import { openClient, type TestClient } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { total } from '../support/metrics.ts';
import { type PostgresServer, query, startPostgres } from '../support/postgres.ts';
import { describeWith, POSTGRES } from '../support/programs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

const TIMEOUT = { timeoutMs: 20_000 };

describeWith(POSTGRES, 'an installation with an archive', () => {
  let postgres: PostgresServer;
  let archiveUrl: string;
  let processes: StackProcesses;
  let client: TestClient;

  beforeAll(async () => {
    postgres = await startPostgres();
    archiveUrl = await postgres.newSchema();
    processes = await startStack({ gateways: 1, workers: 2, env: { USAGE_ARCHIVE_URL: archiveUrl } });
    const { token } = mintToken({ plan: 'enterprise' }, { stack: processes.addresses });
    client = await openClient({ token, url: processes.addresses.gateways[0]?.url ?? '', lifetime: 'file' });
    await client.welcome();
  }, 60_000);

  const ledger = async () => (await billedRecords(undefined, processes.addresses)).map(({ id }) => id);
  const archive = async () => {
    const rows = await query<{ id: string }>(archiveUrl, 'SELECT id FROM usage_records ORDER BY sequence');
    return rows.map(({ id }) => id);
  };
  const verify = async () => {
    const token = await serviceToken('usage:read', { stack: processes.addresses });
    const url = `${processes.addresses.gateways[0]?.url}/v1/usage/verify`;
    return (await fetch(url, { headers: { authorization: `Bearer ${token}` } })).json();
  };
  /** The lag that each of the workers reports. */
  const lag = async () => {
    const urls = processes.addresses.workers.map(({ url }) => url);
    return Math.max(...(await Promise.all(urls.map((url) => total(url, 'tollgate_archive_lag_records')))));
  };

  it('has in PostgreSQL what is billed, in its order, and says so when it is verified', async () => {
    for (let calls = 0; calls < 5; calls++) await callTool(client, 'create_thread', { title: `Thread ${calls}` });
    await until(async () => (await archive()).length === 5, TIMEOUT);
    expect(await archive()).toEqual(await ledger());
    expect(await verify()).toMatchObject({ ok: true, archive: 'compared', archived_records: 5 });
  });

  it('continues while PostgreSQL is away, reports the lag of the archive, and catches up', async () => {
    await postgres.kill();
    for (let calls = 0; calls < 5; calls++) await callTool(client, 'create_thread', { title: `More ${calls}` });
    await until(async () => (await ledger()).length === 10, TIMEOUT);
    await until(async () => (await lag()) >= 5, TIMEOUT);
    expect(await verify()).toMatchObject({ ok: true, archive: 'away', checked_records: 10 });
    for (const worker of processes.workers) expect((await fetch(`${worker.url}/health/ready`)).status).toBe(200);
    await postgres.start();
    await until(async () => (await archive()).length === 10, { timeoutMs: 40_000 });
    await until(async () => (await lag()) === 0, TIMEOUT);
    expect(await archive()).toEqual(await ledger());
  }, 60_000);

  it('is archived on by the other worker when one is killed at any moment', async () => {
    const [first, second] = processes.workers;
    for (const victim of [first, second]) {
      const before = (await ledger()).length;
      const calling = Array.from({ length: 10 }, (_, at) => callTool(client, 'create_thread', { title: `Kill ${at}` }));
      await victim?.kill();
      await Promise.all(calling);
      await until(async () => (await archive()).length === before + 10, TIMEOUT);
      await victim?.start();
    }
    expect(await archive()).toEqual(await ledger());
    expect(await verify()).toMatchObject({ ok: true, archive: 'compared' });
  }, 60_000);
});
