import { Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { DevAccess, request, stateDirOption, urlOption } from './lib/dev-access.ts';
import { table } from './lib/table.ts';
import { runScript, UserError } from './lib/user-error.ts';

const CLIENT_ID = 'bill-cli';
const PAGE = 1_000;
/** Seconds to wait at the end of the feed. A completed call is in the ledger within one. */
const WAIT_SECONDS = '1';

/** The displayed fields of a usage record; the others are kept for `--json`. */
const UsageRecord = z.looseObject({
  id: z.string(),
  sequence: z.number(),
  user_id: z.string(),
  plan: z.string(),
  tool: z.string(),
  status: z.string(),
  units: z.number(),
  duration_ms: z.number(),
  completed_at: z.string(),
});
type UsageRecord = z.infer<typeof UsageRecord>;

const Page = z.object({
  records: z.array(UsageRecord),
  next_cursor: z.string().nullish(),
  has_more: z.boolean(),
  gap_detected: z.boolean(),
});
type Page = z.infer<typeof Page>;

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
async function readFeed(url: string, token: string, { user, limit, cursor }: Flags): Promise<Page> {
  const records: UsageRecord[] = [];
  let gapDetected = false;
  let ends = 0;
  for (let at: string | undefined = cursor; ; ) {
    const query = new URLSearchParams({ limit: String(Math.min(PAGE, limit - records.length)), wait: WAIT_SECONDS });
    if (at !== undefined) query.set('cursor', at);
    if (user !== undefined) query.set('user_id', user);
    const page = await readPage(`${url}/v1/usage/records?${query}`, token);
    records.push(...page.records);
    gapDetected ||= page.gap_detected;
    at = page.next_cursor ?? undefined;
    if (!page.has_more) ends += 1;
    if (ends === 2 || at === undefined || records.length >= limit) {
      return { records, next_cursor: at, has_more: page.has_more, gap_detected: gapDetected };
    }
  }
}

async function readPage(url: string, token: string): Promise<Page> {
  const response = await request(url, { headers: { authorization: `Bearer ${token}` } });
  const text = await response.text();
  if (!response.ok) {
    throw new UserError(`The gateway refused to show the usage records: HTTP ${response.status} ${text.slice(0, 200)}`);
  }
  const { data, error } = Page.safeParse(jsonOf(text));
  if (error) throw new UserError(`The gateway's answer is not a page of usage records: ${error.message}`);
  return data;
}

/** Returns undefined if the text is not JSON, such as the page of another server at that address. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function render({ records, next_cursor, has_more, gap_detected }: Page): string {
  if (records.length === 0) {
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
    `${Math.round(record.duration_ms)} ms`,
    record.completed_at,
  ]);
  const lines = [table(header, rows, ['SEQUENCE', 'UNITS', 'DURATION']), '', totals(records)];
  if (gap_detected) lines.push('WARNING: the feed reports a gap; records are missing. See GET /v1/usage/verify.');
  if (has_more) lines.push(`More records: npm run bill -- --cursor ${next_cursor}`);
  return lines.join('\n');
}

function totals(records: readonly UsageRecord[]): string {
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
  const page = await readFeed(access.gatewayUrl, token, flags);
  process.stdout.write(`${flags.json ? JSON.stringify(page, null, 2) : render(page)}\n`);
  return 0;
});
