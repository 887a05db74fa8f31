import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Redis } from 'ioredis';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { Keys } from '../../src/redis/keys.ts';
import { KEY_PREFIX } from '../lib/deployment.ts';

const USERS_PER_PIPELINE = 1_000;
const RECORDS_PER_SCRIPT = 20_000;
/** Bytes of a usage record of a tool call within a run. */
const RECORD_BYTES = 560;

/** Adds users with one live connection each to the registry. */
export async function fillRegistry(redis: Redis, users: number): Promise<void> {
  const keys = new Keys(KEY_PREFIX);
  const endsAt = Date.now() + 3_600_000;
  const details = JSON.stringify({ node: 'node_elsewhere', endpoint: '/ws', opened_at: new Date().toISOString() });
  for (let from = 0; from < users; from += USERS_PER_PIPELINE) {
    const pipeline = redis.pipeline();
    for (let at = from; at < Math.min(users, from + USERS_PER_PIPELINE); at++) {
      const user = keys.user(`registered-${at}`);
      pipeline.zadd(user.leases, endsAt, `ws_${at}`).hset(user.connections, `ws_${at}`, `1 ${details}`);
    }
    await pipeline.exec();
  }
}

/** Adds records: KEYS[1] the ledger, ARGV[1] and ARGV[2] the first and last sequence, ARGV[3] the record, ARGV[4] ms. */
const ADD_RECORDS = `for at = ARGV[1], ARGV[2] do
  redis.call('XADD', KEYS[1], string.format('%d-0', at), 'r', ARGV[3], 'a', ARGV[4])
end`;

/** Lengthens the ledger with copies of one record; the chain continues behind them. 10 million take about 7 GB. */
export async function fillLedger(redis: Redis, records: number): Promise<void> {
  const keys = new Keys(KEY_PREFIX);
  const record = { id: 'usage_of_the_growth_benchmark', user_id: 'u', units: 1, tool: 'list_agents' };
  const json = JSON.stringify(record).padEnd(RECORD_BYTES, ' ');
  for (let from = 1; from <= records; from += RECORDS_PER_SCRIPT) {
    const to = Math.min(records, from + RECORDS_PER_SCRIPT - 1);
    await redis.eval(ADD_RECORDS, 1, keys.ledger, from, to, json, Date.now());
  }
  await redis.hset(keys.ledgerState, { sequence: records, hash: 'f'.repeat(64) });
}

interface PlansFile {
  readonly plans: Record<string, { rank: number; allowances: Record<string, number> }>;
}
interface ToolsFile {
  readonly permissions: Record<string, object>;
  readonly tools: { name: string; executor: string; permission: string }[];
}

/**
 * Writes a catalogue that is larger than the committed one, and returns its folder. A further plan is a copy of `free`;
 * a further tool is a copy of `list_agents` with an allowance in each plan; a further permission has limits.
 */
export function largeCatalogue(size: {
  readonly plans?: number;
  readonly permissions?: number;
  readonly tools?: number;
}): string {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-catalogue-'));
  cpSync(join(PROJECT_ROOT, 'config'), folder, { recursive: true });
  const [plansFile, toolsFile] = [join(folder, 'plans.json'), join(folder, 'tools.json')];
  const plans = JSON.parse(readFileSync(plansFile, 'utf8')) as PlansFile;
  const catalogue = JSON.parse(readFileSync(toolsFile, 'utf8')) as ToolsFile;
  const listAgents = catalogue.tools.find(({ name }) => name === 'list_agents');
  for (let at = catalogue.tools.length; at < (size.tools ?? 0) && listAgents; at++) {
    const name = `tool_number_${at}`;
    catalogue.tools.push({ ...listAgents, name, executor: 'none' });
    for (const plan of Object.values(plans.plans)) plan.allowances[name] = 1_000;
  }
  for (let at = Object.keys(catalogue.permissions).length; at < (size.permissions ?? 0); at++) {
    const limits = { hour: 100, day: 1_000 };
    catalogue.permissions[`permission_${at}`] = { description: 'One of many permissions.', limits };
  }
  const { free } = plans.plans;
  for (let at = Object.keys(plans.plans).length; at < (size.plans ?? 0) && free; at++) {
    plans.plans[`plan_number_${at}`] = { ...free, rank: at };
  }
  writeFileSync(plansFile, JSON.stringify(plans));
  writeFileSync(toolsFile, JSON.stringify(catalogue));
  return folder;
}
