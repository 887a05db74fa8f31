import { fileURLToPath } from 'node:url';
import pg from 'pg';
import type { Logger } from '../../lib/logger.ts';

const MIGRATIONS = fileURLToPath(new URL('./migrations/', import.meta.url));
const MIGRATIONS_TABLE = 'tollgate_migrations';
/** Id of the advisory lock for migrations: an arbitrary number that is unique in the database. */
const MIGRATION_LOCK = 8_203_117_446;
/** A schema name that needs no quotes, because postgrator does not quote it. */
const PLAIN_NAME = /^[a-z_][a-z0-9_]*$/;

const CONNECT_TIMEOUT_MS = 5_000;
/** Longer than a batch takes on a slow disk. A PostgreSQL that needs more counts as unavailable. */
const QUERY_TIMEOUT_MS = 20_000;
/** A lease holder that hangs between two statements loses the lease after this time. */
const IDLE_IN_TRANSACTION_MS = 30_000;
/** Maximum number of connections per process: the archiver uses one, a verification of the ledger another. */
const MAX_CONNECTIONS = 3;

/** A connection that is checked out of the pool. */
export type Client = pg.PoolClient;

/**
 * The PostgreSQL database with the tables of the archive. A process that archives creates or migrates them before the
 * first use. It sends no query earlier, so a process can start while PostgreSQL is unavailable.
 */
export class ArchiveDatabase {
  readonly #pool: pg.Pool;
  readonly #logger: Logger;
  #ready: boolean;

  /** @param options.migrates false for a process that only reads, whose role need not own the tables */
  constructor(url: string, { logger }: { readonly logger: Logger }, { migrates }: { readonly migrates: boolean }) {
    this.#logger = logger;
    this.#ready = !migrates;
    this.#pool = new pg.Pool({
      connectionString: url,
      application_name: 'tollgate-archive',
      max: MAX_CONNECTIONS,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
      statement_timeout: QUERY_TIMEOUT_MS,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS,
      keepAlive: true,
      allowExitOnIdle: true,
    });
    // Errors of idle connections. Without a listener, a broken connection would end the process.
    this.#pool.on('error', (error) => logger.warn({ error: error.message }, 'postgresql connection error'));
  }

  /**
   * Runs `work` with a connection. After an error the connection is closed and not reused.
   * @throws Error while PostgreSQL is unavailable, or any error that it returns
   */
  async use<T>(work: (client: Client) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    // A checked-out connection needs its own listener. Its errors also reject the query in flight.
    const failed = (error: Error) => this.#logger.debug({ error: error.message }, 'postgresql connection lost');
    client.on('error', failed);
    try {
      if (!this.#ready) await this.#prepare(client);
      const result = await work(client);
      client.off('error', failed);
      client.release();
      return result;
    } catch (error) {
      client.release(true);
      throw error;
    }
  }

  /** Runs `work` in a transaction: all of its writes take effect, or none. */
  transaction<T>(work: (client: Client) => Promise<T>): Promise<T> {
    return this.use(async (client) => {
      await client.query('BEGIN');
      // An error closes the connection, which rolls the transaction back.
      const result = await work(client);
      await client.query('COMMIT');
      return result;
    });
  }

  /** Waits for the queries in flight, which have a timeout. */
  async close(): Promise<void> {
    await this.#pool.end();
  }

  async #prepare(client: Client): Promise<void> {
    const { rows } = await client.query<{ encoding: string; schema: string | null }>(
      "SELECT current_setting('server_encoding') AS encoding, current_schema() AS schema",
    );
    const { encoding, schema } = rows[0] ?? {};
    // With another encoding, user ids or idempotency keys might be unrepresentable, or have other bytes than those that
    // the hash covers.
    if (encoding !== 'UTF8') throw new Error(`the encoding of the archive's database must be UTF8, found ${encoding}`);
    if (!schema || !PLAIN_NAME.test(schema))
      throw new Error(`the archive needs a schema with a plain name, found ${schema}`);
    // Loaded only in processes that use an archive.
    const { default: Postgrator } = await import('postgrator');
    const migrations = new Postgrator({
      driver: 'pg',
      currentSchema: schema,
      schemaTable: MIGRATIONS_TABLE,
      migrationPattern: `${MIGRATIONS.replaceAll(/[*?()[\]{}!]/g, '[$&]')}*.sql`,
      execQuery: (query) => client.query(query),
    });
    await client.query('BEGIN');
    // Several processes may start at once: one migrates, and the others wait for the lock, which ends with the
    // transaction.
    await client.query(`SELECT pg_advisory_xact_lock(${MIGRATION_LOCK})`);
    await migrations.migrate();
    await client.query('COMMIT');
    this.#ready = true;
  }
}
