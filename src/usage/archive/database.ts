import { fileURLToPath } from 'node:url';
import pg from 'pg';
import type { Logger } from '../../lib/logger.ts';

const MIGRATIONS = fileURLToPath(new URL('./migrations/', import.meta.url));
const MIGRATIONS_TABLE = 'tollgate_migrations';
/** Names one lock among all that the database's users take: any number that nobody else has. */
const MIGRATION_LOCK = 8_203_117_446;
/** Needs no quotes: postgrator puts none. */
const PLAIN_NAME = /^[a-z_][a-z0-9_]*$/;

const CONNECT_TIMEOUT_MS = 5_000;
/** Longer than a batch takes on a slow disk; a PostgreSQL that needs more is away. */
const QUERY_TIMEOUT_MS = 20_000;
/** A holder of the lease that hangs between two statements loses it after this. */
const IDLE_IN_TRANSACTION_MS = 30_000;
/** Of one process: the archiver takes one, a check of the ledger another. */
const MAX_CONNECTIONS = 3;

/** A connection, as whoever has it uses it. */
export type Client = pg.PoolClient;

/**
 * PostgreSQL, with the tables of the archive: whoever archives makes them, or brings them up to date, before the first
 * use. Nothing is asked until then, so that a process starts without it.
 */
export class ArchiveDatabase {
  readonly #pool: pg.Pool;
  readonly #logger: Logger;
  #ready: boolean;

  /** @param options.migrates false for who only reads, whose role need not be the owner of the tables */
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
    // Of connections that nobody has: without a listener one that is cut would end the process.
    this.#pool.on('error', (error) => logger.warn({ error: error.message }, 'postgresql connection error'));
  }

  /** @throws Error while PostgreSQL is away, or of what it answers; the connection is dropped then, not used again */
  async use<T>(work: (client: Client) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    // While it is taken its errors are its own; they also reject the query that is under way.
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

  /** All of what `work` does, or nothing. */
  transaction<T>(work: (client: Client) => Promise<T>): Promise<T> {
    return this.use(async (client) => {
      await client.query('BEGIN');
      // What fails ends the connection, and with it the transaction.
      const result = await work(client);
      await client.query('COMMIT');
      return result;
    });
  }

  /** Waits for queries under way, for as long as these may take. */
  async close(): Promise<void> {
    await this.#pool.end();
  }

  async #prepare(client: Client): Promise<void> {
    const { rows } = await client.query<{ encoding: string; schema: string | null }>(
      "SELECT current_setting('server_encoding') AS encoding, current_schema() AS schema",
    );
    const { encoding, schema } = rows[0] ?? {};
    // In another one a user's name or an idempotency key may have no bytes, or others than the hash is over.
    if (encoding !== 'UTF8') throw new Error(`the encoding of the archive's database must be UTF8, found ${encoding}`);
    if (!schema || !PLAIN_NAME.test(schema))
      throw new Error(`the archive needs a schema with a plain name, found ${schema}`);
    // Loaded by who has an archive only.
    const { default: Postgrator } = await import('postgrator');
    const migrations = new Postgrator({
      driver: 'pg',
      currentSchema: schema,
      schemaTable: MIGRATIONS_TABLE,
      migrationPattern: `${MIGRATIONS.replaceAll(/[*?()[\]{}!]/g, '[$&]')}*.sql`,
      execQuery: (query) => client.query(query),
    });
    await client.query('BEGIN');
    // Several processes come at once: one migrates, the others wait for it. It ends with the transaction.
    await client.query(`SELECT pg_advisory_xact_lock(${MIGRATION_LOCK})`);
    await migrations.migrate();
    await client.query('COMMIT');
    this.#ready = true;
  }
}
