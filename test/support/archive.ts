import { systemClock } from '../../src/lib/clock.ts';
import { UsageArchive } from '../../src/usage/archive/archive.ts';
import { Archiver, type Step } from '../../src/usage/archive/archiver.ts';
import { ArchiveDatabase } from '../../src/usage/archive/database.ts';
import { LedgerServer } from '../../src/usage/ledger-server.ts';
import { Verifier } from '../../src/usage/verifier.ts';
import { silentLogger } from './core.ts';
import { closeAfter } from './open-resources.ts';
import { query } from './postgres.ts';
import type { UsageFixture } from './usage.ts';

/** What an archive has in its tables. */
export interface Rows {
  readonly sequence: string;
  readonly id: string;
  readonly record: string;
}

/** The archive of a test's ledger, with everything that writes and reads it. */
export function archiveFixture(usage: UsageFixture, url: string) {
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
