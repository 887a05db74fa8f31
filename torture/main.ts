import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { machine } from '../load/lib/results.ts';
import { describeFailure, runScript } from '../scripts/lib/user-error.ts';
import { closeFileResources } from '../test/support/open-resources.ts';
import { Deployment } from './lib/deployment.ts';
import { FAULTS } from './lib/faults.ts';
import { readHistory } from './lib/history.ts';
import type { Violation } from './lib/promises.ts';
import { REDIS_KINDS, type RedisKind } from './lib/redis-hosts.ts';
import { htmlReport, markdownRows, updatePage } from './lib/report.ts';
import { type RoundResult, resultOf } from './lib/results.ts';
import { runRound } from './lib/round.ts';

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
  readonly from?: string;
  readonly balancer: boolean;
  readonly history: string;
  readonly check?: readonly string[];
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
    .option('--from <version>', 'gateways and workers start in this version (a tag), for the fault `version`')
    .option('--no-balancer', 'connects the clients to the gateways instead of HAProxy')
    .option('--out <file>', 'writes the report as HTML')
    .option('--docs <file>', 'replaces the rows in a page such as docs/reliability.md')
    .option('--history <folder>', 'folder of the recorded histories', join(tmpdir(), 'tollgate-torture-histories'))
    .option('--check <files...>', 'only checks recorded histories (seed-N.jsonl) again')
    .parse([...argv], { from: 'user' })
    .opts<Flags>();
}

async function oneRound(flags: Flags, seed: number): Promise<RoundResult> {
  const historyFile = resolve(flags.history, `seed-${seed}.jsonl`);
  const startedAt = performance.now();
  const progress = (line: string) => {
    process.stderr.write(`seed ${seed}, ${((performance.now() - startedAt) / 1_000).toFixed(1)} s: ${line}\n`);
  };
  const failures: Violation[] = [];
  const note = (error: unknown) => void failures.push({ promise: 'processes', what: describeFailure(error) });
  const { only, users, faults: faultsPerSecond, redis, from, balancer } = flags;
  const clocks = only === undefined || only.includes('clock');
  const deployment = await Deployment.start({ balancer, redis, from, clocks }).catch((error: unknown) => {
    process.stderr.write(`${describeFailure(error)}\n`);
    // What has started, ends with this process.
    process.exit(1);
  });
  progress(`started; the history is ${historyFile}`);
  const durationMs = flags.minutes * 60_000;
  await runRound(deployment, { seed, durationMs, users, only, faultsPerSecond, historyFile, progress }).catch(note);
  await deployment.close().catch(note);
  const result = resultOf(seed, readHistory(historyFile));
  return { ...result, violations: [...failures, ...result.violations] };
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

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
await runScript(async () => {
  const flags = parseFlags(process.argv.slice(2));
  const context = { startedAt: startOf(flags.check), machine: machine() };
  const rounds: RoundResult[] = [];
  const add = (result: RoundResult) => {
    rounds.push(result);
    process.stdout.write(`${summaryOf(result)}\n`);
  };
  for (const file of flags.check ?? []) add(resultOf(seedOf(file), readHistory(file)));
  if (flags.check === undefined) {
    mkdirSync(flags.history, { recursive: true });
    for (let seed = flags.seed; seed < flags.seed + flags.rounds; seed++) add(await oneRound(flags, seed));
    await closeFileResources();
  }
  if (flags.out !== undefined) writeFileSync(flags.out, htmlReport(rounds, context));
  if (flags.docs !== undefined) updatePage(flags.docs, markdownRows(rounds, context));
  return rounds.every(({ violations }) => violations.length === 0) ? 0 : 1;
});
