import { setTimeout as delay } from 'node:timers/promises';
import { freePorts } from '../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, whenReady } from '../scripts/lib/processes.ts';
import { type Client, connectSocketIo } from './lib/clients.ts';
import { startCpuClock } from './lib/cpu.ts';
import { Deployment } from './lib/deployment.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { percentile } from './lib/statistics.ts';
import type { StreamSettings } from './peers/streaming-model.ts';

const RUNS = 100;

interface Round {
  readonly name: string;
  /** Undefined for the built-in agent, for comparison. */
  readonly pace?: Omit<StreamSettings, 'port'>;
  /** Milliseconds over which the requests are spread. */
  readonly spreadMs: number;
}

/** Paces of hosted models, and one that no model has. */
const ROUNDS: readonly Round[] = [
  { name: 'built-in agent, in one instant', spreadMs: 0 },
  { name: '50 tokens/s, in one instant', pace: { tokens: 250, tokenMs: 20 }, spreadMs: 0 },
  { name: '50 tokens/s, over 2 s', pace: { tokens: 250, tokenMs: 20 }, spreadMs: 2_000 },
  { name: '200 tokens/s, over 2 s', pace: { tokens: 1_000, tokenMs: 5 }, spreadMs: 2_000 },
  { name: 'no pause, over 2 s', pace: { tokens: 1_000, tokenMs: 0 }, spreadMs: 2_000 },
];

/** Milliseconds from the request, as the client measures them. */
interface RunTimes {
  readonly firstEvent: number;
  readonly firstDelta: number;
  readonly completed: number;
}

interface Measured {
  readonly times: readonly RunTimes[];
  /** `agent_thinking` events of all runs. */
  readonly appends: number;
  /** CPU time of worker and Redis, in microseconds. */
  readonly cpu: readonly number[];
}

async function timeRun(client: Client): Promise<RunTimes> {
  const sentAt = performance.now();
  const since = async (type: string) => {
    await client.next(type);
    return performance.now() - sentAt;
  };
  const times = Promise.all([since('agent_started'), since('agent_thinking'), since('agent_completed')]);
  client.send('agent_request', { message: 'Tell me something long.' });
  const [firstEvent = 0, firstDelta = 0, completed = 0] = await times;
  return { firstEvent, firstDelta, completed };
}

async function appendedThoughts(workerUrl: string): Promise<number> {
  const metrics = await (await fetch(`${workerUrl}/metrics`)).text();
  return Number(/event_log_appends_total\{type="agent_thinking"\} (\d+)/.exec(metrics)?.[1] ?? 0);
}

async function startModel(pace: Omit<StreamSettings, 'port'>): Promise<{ url: string; process: ManagedProcess }> {
  const [port = 0] = await freePorts(1);
  const settings: StreamSettings = { ...pace, port };
  const args = ['bench/peers/streaming-model.ts', JSON.stringify(settings)];
  const model = new ManagedProcess({ name: 'model', command: process.execPath, args, env: process.env });
  const url = `http://127.0.0.1:${port}`;
  await whenReady(model, { name: 'model', isReady: async () => (await httpStatus(url)) === 200 });
  return { url, process: model };
}

/** Starts all runs concurrently, each for a user with its own connection. It runs twice, and the second time counts. */
async function measure({ pace, spreadMs }: Round, runs: number): Promise<Measured> {
  const model = pace && (await startModel(pace));
  const deployment = await Deployment.start();
  const clients: Client[] = [];
  try {
    const env = {
      RUN_CONCURRENCY: String(RUNS),
      ...(model ? { AGENT_MODEL_URL: `${model.url}/v1`, AGENT_MODEL_NAME: 'bench' } : {}),
    };
    const [gateway, worker] = await Promise.all([deployment.gateway(), deployment.worker(env)]);
    for (let user = 0; user < runs; user++) {
      clients.push(await connectSocketIo(gateway.url, deployment.token(`user-${user}`)));
    }
    await Promise.all(clients.map(timeRun));
    const before = await appendedThoughts(worker.url);
    const sinceStart = startCpuClock([worker.pid, deployment.redisPid]);
    const times = await Promise.all(
      clients.map(async (client, at) => {
        await delay((at * spreadMs) / runs);
        return timeRun(client);
      }),
    );
    return { times, cpu: sinceStart(), appends: (await appendedThoughts(worker.url)) - before };
  } finally {
    for (const client of clients) client.close();
    await deployment.close();
    await model?.process.stop();
  }
}

/** Measures runs on a streaming model, a hundred at a time over Socket.IO, until the clients have the events. */
export async function modelRuns({ quick }: BenchOptions): Promise<Report> {
  const runs = quick ? 5 : RUNS;
  const times: string[][] = [];
  const costs: string[][] = [];
  const data: Record<string, Measured> = {};
  for (const round of ROUNDS) {
    progress(`model runs: ${runs} concurrent runs, ${round.name}`);
    const measured = await measure(round, runs);
    data[round.name] = measured;
    for (const [step, label] of [
      ['firstEvent', 'agent_started'],
      ['firstDelta', 'first agent_thinking'],
      ['completed', 'agent_completed'],
    ] as const) {
      const values = measured.times.map((one) => one[step]);
      const shares = [percentile(values, 0.5), percentile(values, 0.99), Math.max(...values)];
      times.push([`${round.name}: ${label}`, ...shares.map((ms) => ms.toFixed(0))]);
    }
    if (!round.pace) continue;
    const thousands = (runs * round.pace.tokens) / 1_000;
    const perThousand = [measured.appends, ...measured.cpu.map((us) => us / 1_000)].map((all) => all / thousands);
    costs.push([round.name, ...perThousand.map((one) => one.toFixed(1))]);
  }
  return {
    name: 'Runs on a model',
    about: [
      `${runs} concurrent runs over Socket.IO, one user each, one gateway, one worker, one model process on the same machine.`,
      'The model sends 250 tokens (1,000 at the faster paces), each in a chunk; no tool calls.',
    ].join('\n'),
    tables: [
      { title: 'Milliseconds after the request was sent', header: ['until', 'p50', 'p99', 'max'], rows: times },
      { title: 'Per 1,000 tokens', header: ['pace', 'appends', 'worker CPU ms', 'Redis CPU ms'], rows: costs },
    ],
    data,
  };
}

if (import.meta.main) await runAsProgram([modelRuns]);
