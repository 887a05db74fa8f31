import { beforeAll } from '@jest/globals';
import { systemClock } from '../../src/lib/clock.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { UsageArchive } from '../../src/usage/archive/archive.ts';
import { Archiver, type Step } from '../../src/usage/archive/archiver.ts';
import { ArchiveDatabase } from '../../src/usage/archive/database.ts';
import { Verifier } from '../../src/usage/ledger/verifier.ts';
import { LedgerServer } from '../../src/usage/recovery/ledger-server.ts';
import { silentLogger } from './core.ts';
import { closeAfter } from './open-resources.ts';
import { type PostgresServer, query, startPostgres } from './postgres.ts';
import { testRedisUrl } from './stack.ts';
import { usageFixture } from './usage.ts';

/** What an archive has in its tables. */
export interface Rows {
  readonly sequence: string;
  readonly id: string;
  readonly record: string;
}

/** What ledgers and archives of a test file live on. */
export interface ArchiveServers {
  /** The tests' Redis. */
  readonly redis: Redis;
  /** The file's own. */
  readonly postgres: PostgresServer;
}

/** For a whole `describe`: there from its first test on. */
export function useArchiveServers(): ArchiveServers {
  let servers: ArchiveServers | undefined;
  beforeAll(async () => {
    const redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
    closeAfter('file', () => disconnectRedis(redis));
    servers = { redis, postgres: await startPostgres() };
  }, 60_000);
  const started = (): ArchiveServers => {
    if (!servers) throw new Error('the servers are there inside tests and hooks only');
    return servers;
  };
  return {
    get redis() {
      return started().redis;
    },
    get postgres() {
      return started().postgres;
    },
  };
}

/** A ledger and an archive that no other test has, with everything that writes and reads them. */
export async function archiveFixture({ redis, postgres }: ArchiveServers) {
  const usage = usageFixture(redis);
  const url = await postgres.newSchema();
  const database = new ArchiveDatabase(url, { logger: silentLogger }, { migrates: true });
  closeAfter('test', () => database.close());
  const archive = new UsageArchive(database);
  const server = new LedgerServer(usage);
  const archiver = new Archiver({ ...usage, server, archive });
  /** Steps until there is nothing left to do. */
  const archiveAll = async (): Promise<Step[]> => {
    const steps = [await archiver.step()];
    while (steps.at(-1)?.more) steps.push(await archiver.step());
    return steps;
  };
  return {
    usage,
    url,
    database,
    archive,
    server,
    archiver,
    archiveAll,
    verifier: new Verifier({ ...usage, clock: systemClock, archive }),
    /** As an operator would look, or tamper. */
    sql: <Row extends object>(text: string, values: unknown[] = []) => query<Row & Rows>(url, text, values),
    rows: () => query<Rows>(url, 'SELECT sequence, id, record::text AS record FROM usage_records ORDER BY sequence'),
  };
}
