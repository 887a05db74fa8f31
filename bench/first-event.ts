import { type Client, connectSocketIo, connectWs } from './lib/clients.ts';
import { Deployment } from './lib/deployment.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { percentile } from './lib/statistics.ts';

const REQUESTS = 200;
const WARM_UP = 20;
const MESSAGE = 'How is my workload doing?';

/** Milliseconds from the request, as the client measures them. */
interface RunTimes {
  readonly accepted: number;
  readonly firstEvent: number;
  readonly completed: number;
}

const STEPS: readonly (readonly [keyof RunTimes, string])[] = [
  ['accepted', 'agent_accepted'],
  ['firstEvent', 'agent_started'],
  ['completed', 'agent_completed'],
];

async function timeRun(client: Client): Promise<RunTimes> {
  const sentAt = performance.now();
  const since = async (type: string) => {
    await client.next(type);
    return performance.now() - sentAt;
  };
  const times = Promise.all(STEPS.map(([, type]) => since(type)));
  client.send('agent_request', { message: MESSAGE });
  const [accepted = 0, firstEvent = 0, completed = 0] = await times;
  return { accepted, firstEvent, completed };
}

async function timeRuns(client: Client, requests: number): Promise<RunTimes[]> {
  const runs: RunTimes[] = [];
  for (let i = 0; i < WARM_UP + requests; i++) runs.push(await timeRun(client));
  client.close();
  return runs.slice(WARM_UP);
}

/**
 * Sends agent requests one at a time through a gateway, BullMQ and a worker, and measures until the client has the
 * events.
 */
export async function firstEvent({ quick }: BenchOptions): Promise<Report> {
  const requests = quick ? 20 : REQUESTS;
  const deployment = await Deployment.start();
  try {
    const [{ url }] = await Promise.all([deployment.gateway(), deployment.worker()]);
    progress(`first event: ${requests} requests over each transport`);
    const transports = {
      'raw WebSocket': await timeRuns(await connectWs(url, deployment.token('ws')), requests),
      'Socket.IO': await timeRuns(await connectSocketIo(url, deployment.token('io')), requests),
    };
    const rows = Object.entries(transports).flatMap(([transport, runs]) =>
      STEPS.map(([step, type]) => {
        const times = runs.map((run) => run[step]);
        const shares = [percentile(times, 0.5), percentile(times, 0.99), Math.max(...times)];
        return [`${transport}, ${type}`, ...shares.map((ms) => ms.toFixed(1))];
      }),
    );
    return {
      name: 'First event',
      about: `${requests} agent requests one at a time ("${MESSAGE}", one tool call), after ${WARM_UP} that are not counted.`,
      tables: [{ title: 'Milliseconds after the request was sent', header: ['until', 'p50', 'p99', 'max'], rows }],
      data: transports,
    };
  } finally {
    await deployment.close();
  }
}

if (import.meta.main) await runAsProgram([firstEvent]);
