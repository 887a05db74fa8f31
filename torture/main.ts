import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { machine } from '../load/lib/results.ts';
import { describeFailure, runScript } from '../scripts/lib/user-error.ts';
import { closeFileResources } from '../test/support/open-resources.ts';
import { Deployment } from './lib/deployment.ts';
import type { PlannedFault } from './lib/fault-plan.ts';
import { FAULTS } from './lib/faults.ts';
import { readHistory } from './lib/history.ts';
import type { Violation } from './lib/promises.ts';
import { REDIS_KINDS, type RedisKind } from './lib/redis-hosts.ts';
import { htmlReport, markdownRows, type ReportContext, updatePage } from './lib/report.ts';
import { type RoundResult, resultOf } from './lib/results.ts';
import { merged, readResults, saveResult } from './lib/results-file.ts';
import { planOf, runRound } from './lib/round.ts';
import { type Case, shrink } from './lib/shrink.ts';

interface Flags {
  readonly seed: number;
  readonly rounds: number;
  readonly minutes: number;
  readonly users: number;
  readonly faults: number;
  readonly only?: readonly string[];
  readonly out?: string;
  readonly docs?: string;
  readonly redis: RedisKind;
  readonly balancer: boolean;
  readonly history: string;
  readonly check?: readonly string[];
  readonly merge?: readonly string[];
  readonly shrink: boolean;
  readonly shrinkRounds: number;
  readonly plant?: string;
}

/** What --shrink changes in a round; otherwise the options and the seed decide. */
interface Changes {
  readonly users?: number;
  readonly durationMs?: number;
  readonly faults?: readonly PlannedFault[];
}

const SHOWN = 20;

function number(min: number, max: number, isWhole = true): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value >= min && value <= max && (!isWhole || Number.isInteger(value))) return value;
    throw new InvalidArgumentError(`must be a ${isWhole ? 'whole ' : ''}number from ${min} to ${max}.`);
  };
}

function faultNames(text: string): string[] {
  const known = FAULTS.map(({ kind }) => kind);
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length === 0) return names;
  throw new InvalidArgumentError(`${unknown.join(', ')} is unknown; the faults are ${known.join(', ')}.`);
}

function parseFlags(argv: readonly string[]): Flags {
  const option = (flags: string, text: string, parse: (value: string) => unknown) =>
    new Option(flags, text).argParser(parse);
  return new Command('npm run torture --')
    .description('Breaks a deployment of real processes at random moments, and checks what its clients and ledger saw.')
    .addOption(option('--seed <n>', 'seed of the first round', number(0, 2 ** 31)).default(1))
    .addOption(option('--rounds <n>', 'rounds, each with the next seed', number(1, 1_000)).default(1))
    .addOption(option('--minutes <m>', 'minutes of faults per round', number(0.05, 1_440, false)).default(1))
    .addOption(option('--users <n>', 'users, with four clients each', number(1, 100)).default(4))
    .addOption(option('--faults <n>', 'mean number of faults per second', number(0.01, 5, false)).default(0.4))
    .addOption(option('--only <faults>', 'kinds of faults, separated by commas; default: all', faultNames))
    .addOption(new Option('--redis <kind>', 'topology of Redis').choices(REDIS_KINDS).default('single'))
    .option('--no-balancer', 'connects the clients to the gateways instead of HAProxy')
    .option('--out <file>', 'writes the report as HTML')
    .option('--docs <file>', 'replaces the rows in a page such as docs/reliability.md')
    .option('--history <folder>', 'folder of the recorded histories', join(tmpdir(), 'tollgate-torture-histories'))
    .option('--check <files...>', 'only checks recorded histories (seed-N.jsonl) again')
    .option(
      '--merge <files...>',
      'only reports results of earlier invocations (seed-N.json in the folder of --history)',
    )
    .option('--shrink', 'replays a seed that violates with fewer faults and users, and prints the smallest case', false)
    .addOption(option('--shrink-rounds <n>', 'rounds that --shrink plays at most', number(1, 1_000)).default(12))
    .addOption(
      option('--plant <fault>', 'adds a violation to each round with this fault, to try --shrink', (text) => {
        return faultNames(text)[0];
      }),
    )
    .parse([...argv], { from: 'user' })
    .opts<Flags>();
}

interface Played {
  readonly result: RoundResult;
  /** The faults that the round planned; none if it did not start. */
  readonly plan: readonly PlannedFault[];
}

async function oneRound(flags: Flags, seed: number, changes: Changes = {}): Promise<Played> {
  const historyFile = resolve(flags.history, `seed-${seed}.jsonl`);
  const context = { startedAt: new Date(), machine: machine() };
  const startedAt = performance.now();
  const progress = (line: string) => {
    process.stderr.write(`seed ${seed}, ${((performance.now() - startedAt) / 1_000).toFixed(1)} s: ${line}\n`);
  };
  const failures: Violation[] = [];
  const note = (error: unknown) => void failures.push({ promise: 'processes', what: describeFailure(error) });
  const { only, users, faults: faultsPerSecond, redis, balancer } = flags;
  const clocks = only === undefined || only.includes('clock');
  const deployment = await Deployment.start({ balancer, redis, clocks }).catch((error: unknown) => {
    process.stderr.write(`${describeFailure(error)}\n`);
    // What has started, ends with this process.
    process.exit(1);
  });
  progress(`started; the history is ${historyFile}`);
  const options = { seed, durationMs: flags.minutes * 60_000, users, only, faultsPerSecond, ...changes };
  const plan = planOf(deployment, options);
  await runRound(deployment, { ...options, faults: plan, historyFile, progress }).catch(note);
  await deployment.close().catch(note);
  const checked = resultOf(seed, readHistory(historyFile));
  if (plan.some(({ kind }) => kind === flags.plant)) failures.push({ promise: 'processes', what: 'planted' });
  const result = { ...checked, violations: [...failures, ...checked.violations] };
  saveResult(historyFile, result, context);
  return { result, plan };
}

/** Plays a seed, and smaller cases of it while they violate one of the same promises. */
async function shrinkRound(flags: Flags): Promise<RoundResult> {
  const { result, plan } = await oneRound(flags, flags.seed);
  process.stdout.write(`${summaryOf(result)}\n`);
  const promises = new Set(result.violations.map(({ promise }) => promise));
  if (promises.size === 0) return result;
  // The history and the result of the first round stay as they are.
  const folder = join(flags.history, 'shrunk');
  mkdirSync(folder, { recursive: true });
  const violates = async (smaller: Case) => {
    const { users, durationMs, faults } = smaller;
    const played = await oneRound({ ...flags, history: folder }, flags.seed, smaller);
    const isSame = played.result.violations.some(({ promise }) => promises.has(promise));
    const size = `${faults.length} faults, ${users} users, ${(durationMs / 1_000).toFixed(1)} s`;
    process.stdout.write(`  ${isSame ? 'violates' : 'holds   '}: ${size}\n`);
    return isSame;
  };
  const first = { faults: plan, users: flags.users, durationMs: flags.minutes * 60_000 };
  const { smallest, rounds } = await shrink(first, violates, flags.shrinkRounds);
  const listed = smallest.faults.map(({ kind, target, at, forMs }) => {
    return `  ${(at / 1_000).toFixed(1)} s: ${kind} of ${target} for ${forMs} ms`;
  });
  const size = `${smallest.users} users, ${(smallest.durationMs / 1_000).toFixed(1)} s`;
  process.stdout.write(
    `${[`Smallest case that violates, after ${rounds} rounds: ${size}, faults:`, ...listed].join('\n')}\n`,
  );
  return result;
}

function summaryOf({ seed, violations, faults, operations, events, records }: RoundResult): string {
  const lines = violations.slice(0, SHOWN).map(({ promise, what, at }) => {
    return `  ${promise}${at === undefined ? '' : ` at ${(at / 1_000).toFixed(1)} s`}: ${what}`;
  });
  const counts = JSON.stringify({ faults: faults.length, operations, events, records });
  return [`Seed ${seed}: ${violations.length} violations. ${counts}`, ...lines].join('\n');
}

/** The time of recorded histories is that of the first file. */
function startOf([file]: readonly string[] = []): Date {
  return file === undefined ? new Date() : statSync(file).mtime;
}

function seedOf(file: string): number {
  return Number(/seed-(\d+)\.jsonl$/.exec(file)?.[1] ?? 0);
}

function readRounds({ check = [], merge }: Flags): { rounds: RoundResult[]; context: ReportContext } {
  if (merge) return merged(readResults(merge));
  const rounds = check.map((file) => resultOf(seedOf(file), readHistory(file)));
  return { rounds, context: { startedAt: startOf(check), machine: machine() } };
}

async function playRounds(flags: Flags): Promise<RoundResult[]> {
  mkdirSync(flags.history, { recursive: true });
  const rounds: RoundResult[] = [];
  for (let seed = flags.seed; !flags.shrink && seed < flags.seed + flags.rounds; seed++) {
    const { result } = await oneRound(flags, seed);
    rounds.push(result);
    process.stdout.write(`${summaryOf(result)}\n`);
  }
  if (flags.shrink) rounds.push(await shrinkRound(flags));
  await closeFileResources();
  return rounds;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
await runScript(async () => {
  const flags = parseFlags(process.argv.slice(2));
  const recorded = readRounds(flags);
  const isReading = flags.check !== undefined || flags.merge !== undefined;
  const rounds = isReading ? recorded.rounds : await playRounds(flags);
  if (isReading) for (const result of rounds) process.stdout.write(`${summaryOf(result)}\n`);
  const { context } = recorded;
  if (flags.out !== undefined) writeFileSync(flags.out, htmlReport(rounds, context));
  if (flags.docs !== undefined) updatePage(flags.docs, markdownRows(rounds, context));
  return rounds.every(({ violations }) => violations.length === 0) ? 0 : 1;
});
// A deployment that could not start leaves processes and timers behind, which end with this one.
process.exit();
