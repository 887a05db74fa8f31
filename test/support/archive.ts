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

/** The contents of an archive's tables. */
export interface Rows {
  readonly sequence: string;
  readonly id: string;
  readonly record: string;
}

/** The servers for ledgers and archives of a test file. */
export interface ArchiveServers {
  /** The shared test Redis. */
  readonly redis: Redis;
  /** A PostgreSQL of the file's own. */
  readonly postgres: PostgresServer;
}

/** For a whole `describe`: available from its first test on. */
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

/** A private ledger and archive, with everything that writes and reads them. */
export async function archiveFixture({ redis, postgres }: ArchiveServers) {
  const usage = usageFixture(redis);
  const url = await postgres.newSchema();
  const database = new ArchiveDatabase(url, { logger: silentLogger }, { migrates: true });
  closeAfter('test', () => database.close());
  const archive = new UsageArchive(database);
  const server = new LedgerServer(usage);
  const archiver = new Archiver({ ...usage, server, archive });
  /** Archives until there is nothing left. */
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
    /** Queries the archive as an operator, or tampers with it. */
    sql: <Row extends object>(text: string, values: unknown[] = []) => query<Row & Rows>(url, text, values),
    rows: () => query<Rows>(url, 'SELECT sequence, id, record::text AS record FROM usage_records ORDER BY sequence'),
  };
}
