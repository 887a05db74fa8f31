import { setTimeout } from 'node:timers/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { TollgateError } from '../packages/client/src/errors.ts';
import {
  LedgerFeed,
  type LedgerPage,
  type LedgerPosition,
  type LedgerRecord,
  type PullOptions,
} from '../packages/client/src/ledger.ts';
import { DevAccess, START_ADVICE, stateDirOption, urlOption } from './lib/dev-access.ts';
import { table } from './lib/table.ts';
import { runScript, UserError } from './lib/user-error.ts';

const CLIENT_ID = 'bill-cli';
const PAGE = 1_000;
/** A completed call is in the ledger within a second. */
const INGESTION_MS = 1_000;

interface Bill {
  readonly records: readonly LedgerRecord[];
  readonly next_cursor: string | undefined;
  readonly has_more: boolean;
  readonly gap_detected: boolean;
}

interface Flags {
  readonly user?: string;
  readonly limit: number;
  readonly cursor?: string;
  readonly json: boolean;
  readonly url?: string;
  readonly stateDir: string;
}

/**
 * Reads the feed until it has `limit` records or has reached the end twice. The second read catches records that were
 * being ingested; a third could continue forever on a busy deployment.
 */
async function readFeed(feed: LedgerFeed, { user, limit, cursor }: Flags): Promise<Bill> {
  const records: LedgerRecord[] = [];
  let position: LedgerPosition = { cursor, lastHash: undefined };
  let hasMore = false;
  const bill = (gap_detected: boolean) => ({ records, next_cursor: position.cursor, has_more: hasMore, gap_detected });
  try {
    for (let ends = 0; ends < 2 && records.length < limit; ) {
      const page = await nextPage(feed, { from: position, user, limit: Math.min(PAGE, limit - records.length) });
      records.push(...(page?.records ?? []));
      position = page?.position ?? position;
      hasMore = page?.hasMore ?? false;
      if (hasMore) continue;
      ends += 1;
      if (ends < 2) await setTimeout(INGESTION_MS);
    }
    return bill(false);
  } catch (error) {
    if (!(error instanceof TollgateError)) throw error;
    if (error.code === 'LEDGER_GAP') return bill(true);
    if (error.code === 'UNREACHABLE') throw new UserError(`${error.message} ${START_ADVICE}`, { cause: error });
    throw new UserError(`The gateway refused to show the usage records: ${error.code} ${error.message}`);
  }
}

async function nextPage(feed: LedgerFeed, options: PullOptions): Promise<LedgerPage | undefined> {
  for await (const page of feed.pull(options)) return page;
  return undefined;
}

function render({ records, next_cursor, has_more, gap_detected }: Bill, { user, cursor }: Flags): string {
  if (records.length === 0) {
    if (user !== undefined) return `There are no records of the user ${user}${cursor ? ' after this cursor' : ''}.`;
    if (cursor !== undefined) return 'There are no records after this cursor.';
    return 'The bill is empty: no tool has been executed yet. Try: npm run chat -- "How is my workload doing?"';
  }
  const header = ['SEQUENCE', 'ID', 'USER', 'PLAN', 'TOOL', 'STATUS', 'UNITS', 'DURATION', 'COMPLETED AT'];
  const rows = records.map((record) => [
    String(record.sequence),
    record.id,
    record.user_id,
    record.plan,
    record.tool,
    record.status,
    String(record.units),
    `${Math.round(Number(record.duration_ms))} ms`,
    record.completed_at,
  ]);
  const lines = [table(header, rows, ['SEQUENCE', 'UNITS', 'DURATION']), '', totals(records)];
  if (gap_detected) lines.push('WARNING: the feed reports a gap; records are missing. See GET /v1/usage/verify.');
  if (has_more) lines.push(`More records: npm run bill -- --cursor ${next_cursor}`);
  return lines.join('\n');
}

function totals(records: readonly LedgerRecord[]): string {
  const units = records.reduce((sum, record) => sum + record.units, 0);
  const byStatus = [...Map.groupBy(records, ({ status }) => status)].map(([status, of]) => `${of.length} ${status}`);
  const users = new Set(records.map(({ user_id }) => user_id)).size;
  const counts = [counted(records.length, 'record'), counted(units, 'unit'), counted(users, 'user')];
  return `${counts.join(', ')} (${byStatus.join(', ')})`;
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function parseLimit(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('must be a whole number above 0.');
}

function parseFlags(): Flags {
  return new Command('npm run bill --')
    .description('Shows the usage records: what was executed, for whom, and what it costs.')
    .option('--user <id>', 'only the records of one user')
    .addOption(
      new Option('--limit <n>', 'maximum number of records')
        .argParser(parseLimit)
        .default(Number.POSITIVE_INFINITY, 'all'),
    )
    .option('--cursor <cursor>', 'continue after an earlier page')
    .option('--json', 'print the records as JSON', false)
    .addOption(urlOption)
    .addOption(stateDirOption)
    .parse()
    .opts<Flags>();
}

await runScript(async () => {
  const flags = parseFlags();
  const access = new DevAccess(flags);
  const token = await access.serviceToken(CLIENT_ID, 'usage:read');
  const feed = new LedgerFeed({ url: access.gatewayUrl, getToken: () => token, retryMs: 0 });
  const bill = await readFeed(feed, flags);
  process.stdout.write(`${flags.json ? JSON.stringify(bill, null, 2) : render(bill, flags)}\n`);
  return 0;
});
