import { freePorts } from '../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, whenReady } from '../scripts/lib/processes.ts';
import { type Client, connectSocketIo } from './lib/clients.ts';
import { startCpuClock } from './lib/cpu.ts';
import { Installation } from './lib/installation.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { percentile } from './lib/statistics.ts';
import type { StreamSettings } from './peers/streaming-model.ts';

const RUNS = 100;
/** A pace that hosted models have, and one that no model has. */
const PACES = [
  { name: '50 tokens/s', tokens: 250, tokenMs: 20 },
  { name: '200 tokens/s', tokens: 1_000, tokenMs: 5 },
  { name: 'at once', tokens: 1_000, tokenMs: 0 },
] as const;
type Pace = (typeof PACES)[number];

/** Milliseconds after the request was sent, as the client sees them. */
interface RunTimes {
  readonly firstEvent: number;
  readonly firstDelta: number;
  readonly completed: number;
}

interface Measured {
  readonly times: readonly RunTimes[];
  /** `agent_thinking` events of all runs. */
  readonly appends: number;
  /** CPU time of the worker and of Redis, in microseconds. */
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

async function startModel(pace: Pace): Promise<{ url: string; process: ManagedProcess }> {
  const [port = 0] = await freePorts(1);
  const settings: StreamSettings = { port, tokens: pace.tokens, tokenMs: pace.tokenMs };
  const args = ['bench/peers/streaming-model.ts', JSON.stringify(settings)];
  const model = new ManagedProcess({ name: 'model', command: process.execPath, args, env: process.env });
  const url = `http://127.0.0.1:${port}`;
  await whenReady(model, { name: 'model', isReady: async () => (await httpStatus(url)) === 200 });
  return { url, process: model };
}

/** All runs at once, each of a user with a connection of its own. */
async function measure(pace: Pace, runs: number): Promise<Measured> {
  const model = await startModel(pace);
  const installation = await Installation.start();
  const clients: Client[] = [];
  try {
    const env = { AGENT_MODEL_URL: `${model.url}/v1`, AGENT_MODEL_NAME: 'bench', RUN_CONCURRENCY: String(RUNS) };
    const [gateway, worker] = await Promise.all([installation.gateway(), installation.worker(env)]);
    for (let user = 0; user < runs; user++) {
      clients.push(await connectSocketIo(gateway.url, installation.token(`user-${user}`)));
    }
    // Loads what the first run loads.
    const [first] = clients;
    if (first) await timeRun(first);
    const before = await appendedThoughts(worker.url);
    const sinceStart = startCpuClock([worker.pid, installation.redisPid]);
    const times = await Promise.all(clients.map(timeRun));
    return { times, cpu: sinceStart(), appends: (await appendedThoughts(worker.url)) - before };
  } finally {
    for (const client of clients) client.close();
    await installation.close();
    await model.process.stop();
  }
}

/** Runs on a streaming model, a hundred at once over Socket.IO, until their events are back at the clients. */
export async function modelRuns({ quick }: BenchOptions): Promise<Report> {
  const runs = quick ? 5 : RUNS;
  const times: string[][] = [];
  const costs: string[][] = [];
  const data: Record<string, Measured> = {};
  for (const pace of PACES) {
    progress(`model runs: ${runs} at once, ${pace.name}`);
    const measured = await measure(pace, runs);
    data[pace.name] = measured;
    for (const [step, label] of [
      ['firstEvent', 'agent_started'],
      ['firstDelta', 'first agent_thinking'],
      ['completed', 'agent_completed'],
    ] as const) {
      const values = measured.times.map((one) => one[step]);
      const shares = [percentile(values, 0.5), percentile(values, 0.99), Math.max(...values)];
      times.push([`${pace.name}, ${label}`, ...shares.map((ms) => ms.toFixed(0))]);
    }
    const thousands = (runs * pace.tokens) / 1_000;
    const perThousand = [measured.appends, ...measured.cpu.map((us) => us / 1_000)].map((all) => all / thousands);
    costs.push([pace.name, ...perThousand.map((one) => one.toFixed(1))]);
  }
  return {
    name: 'Runs on a model',
    about: [
      `${runs} runs at once over Socket.IO, a user each, one gateway, one worker, one model process on the same machine.`,
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
