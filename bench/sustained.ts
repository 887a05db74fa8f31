import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { PROJECT_ROOT } from '../scripts/lib/processes.ts';
import { runScript } from '../scripts/lib/user-error.ts';
import { startCpuClock } from './lib/cpu.ts';
import { Deployment, type Started } from './lib/deployment.ts';
import { machine, printReport, progress } from './lib/report.ts';
import { Worktree } from './price/targets.ts';

/** The rate of the comparison, then the steps of the search. The search ends at the first rate that fails. */
const RATES = [100, 200, 300, 400, 500, 600, 800, 1_000] as const;
const CONNECTS_PER_SECOND = 300;
/** Turns that are late at the end of a step show that the rate is not sustained. */
const GRACE_SECONDS = 10;
/** A user waits one second after each turn, so 2,000 users can start 1,000 turns per second and more. */
const MIX = {
  transports: { websocket: 100 },
  turns: { agent_request: 100 },
  messages: ['How is my workload doing?'],
  think_ms: { min: 500, max: 1_000 },
};
const SUSTAINED = ['run_success>=0.999', 'run_p99_ms<1000', 'first_event_p95_ms<100'] as const;

interface Options {
  readonly commit?: string;
  readonly users: number;
  readonly seconds: number;
  readonly json?: string;
}

interface LoadResults {
  readonly passed: boolean;
  readonly figures: Readonly<Record<string, number>>;
  readonly client: { readonly cores: number };
}

interface Step extends LoadResults {
  readonly version: string;
  readonly rate: number;
  /** Cores that each kind of process used on average, ramp included. */
  readonly cores: readonly [gateway: number, worker: number, redis: number];
}

/** Applies growing rates to one gateway and one worker of a version until one is not sustained. */
async function measureVersion(version: string, root: string | undefined, options: Options): Promise<Step[]> {
  const deployment = await Deployment.start({}, root);
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-sustained-'));
  const steps: Step[] = [];
  try {
    const [gateway, worker] = [await deployment.gateway(), await deployment.worker()];
    const mix = join(folder, 'mix.json');
    writeFileSync(mix, JSON.stringify(MIX));
    for (const rate of RATES) {
      const measured = [gateway.pid, worker.pid, deployment.redisPid];
      const since = startCpuClock(measured);
      const startedAt = performance.now();
      const results = await load({ deployment, gateway, folder, mix, rate }, options);
      const wallMicros = (performance.now() - startedAt) * 1_000;
      const [ofGateway = 0, ofWorker = 0, ofRedis = 0] = since().map((micros) => micros / wallMicros);
      steps.push({ ...results, version, rate, cores: [ofGateway, ofWorker, ofRedis] });
      progress(`${version}, ${rate}/s: ${results.passed ? 'sustained' : 'not sustained'}`);
      if (!results.passed) break;
    }
    return steps;
  } finally {
    await deployment.close();
    rmSync(folder, { recursive: true });
  }
}

/** Runs the load generator of this checkout as a process; it fails by its exit code if a threshold does not hold. */
async function load(
  target: { deployment: Deployment; gateway: Started; folder: string; mix: string; rate: number },
  { users, seconds }: Options,
): Promise<LoadResults> {
  const { deployment, gateway, folder, mix, rate } = target;
  const tokens = join(folder, `tokens-${rate}.txt`);
  const json = join(folder, `results-${rate}.json`);
  const names = Array.from({ length: users }, (_, at) => `load-${rate}-${at}`);
  writeFileSync(tokens, names.map((name) => deployment.token(name)).join('\n'), { mode: 0o600 });
  const args = [
    ...['load/main.ts', '--url', gateway.url, '--tokens', tokens, '--users', String(users), '--mix', mix],
    ...['--turns', `${rate}/s`, '--duration', String(seconds), '--ramp', `${CONNECTS_PER_SECOND}/s`],
    ...['--grace', String(GRACE_SECONDS), '--threads', '1', '--json', json],
    ...SUSTAINED.flatMap((threshold) => ['--threshold', threshold]),
  ];
  const child = spawn(process.execPath, args, { cwd: PROJECT_ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
  await new Promise((resolve, reject) => child.once('close', resolve).once('error', reject));
  return JSON.parse(readFileSync(json, 'utf8')) as LoadResults;
}

function rowOf({ version, rate, passed, figures, cores, client }: Step): string[] {
  const ms = (name: string) => (figures[name] ?? Number.NaN).toFixed(1);
  return [
    ...[version, String(rate), passed ? 'yes' : 'no', ((figures.run_success ?? 0) * 100).toFixed(2)],
    ...[ms('first_event_p50_ms'), ms('first_event_p99_ms'), ms('run_p50_ms'), ms('run_p99_ms')],
    ...[...cores, client.cores].map((used) => used.toFixed(2)),
  ];
}

await runScript(async () => {
  const options = new Command('npm run bench:sustained --')
    .description('Finds the highest rate of turns that one gateway and one worker sustain, before and after.')
    .option('--commit <commit>', 'an earlier version that is measured first')
    .option('--users <n>', 'connected users', Number, 2_000)
    .option('--seconds <n>', 'seconds of load per rate', Number, 12)
    .option('--json <file>', 'write the data to this file')
    .parse()
    .opts<Options>();
  const steps: Step[] = [];
  if (options.commit !== undefined) {
    const worktree = new Worktree(options.commit);
    try {
      steps.push(...(await measureVersion(options.commit, worktree.root, options)));
    } finally {
      worktree.remove();
    }
  }
  steps.push(...(await measureVersion('this', undefined, options)));
  if (options.json !== undefined) writeFileSync(options.json, JSON.stringify({ machine: machine(), steps }, null, 2));
  printReport({
    name: `Sustained turns, ${options.users} users`,
    about: `${machine()}. Sustained: ${SUSTAINED.join(', ')}. Times in ms; cores include the ramp.`,
    tables: [
      {
        title: 'Turns per second',
        header: [
          ...['version', 'turns/s', 'sustained', 'runs completed, %', 'first event p50', 'p99', 'run p50', 'p99'],
          ...['gateway cores', 'worker cores', 'Redis cores', 'client cores'],
        ],
        rows: steps.map(rowOf),
      },
    ],
    data: steps,
  });
  return 0;
});
