import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { freePorts } from '../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, PROJECT_ROOT, whenReady } from '../scripts/lib/processes.ts';
import { UserLogWriter } from '../src/events/user-log-writer.ts';
import { Metrics } from '../src/lib/metrics.ts';
import { NO_TRACING } from '../src/lib/tracing.ts';
import { Keys } from '../src/redis/keys.ts';
import { type Client, connectWs } from './lib/clients.ts';
import { startCpuClock } from './lib/cpu.ts';
import { Deployment, KEY_PREFIX, type Started } from './lib/deployment.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { median, medianAndRange, percentile } from './lib/statistics.ts';
import { FRONT_ENDS, type OpenStream } from './lib/stream-clients.ts';
import { thinkingFields } from './lib/user-events.ts';

const MARKER = 'Looking at your usage';
const IN_FLIGHT = 64;
const TIMEOUT_MS = 120_000;
/** The wait of a new connection for a `resume` is over by then. */
const SETTLED_MS = 400;
const PEER = 'bench/peers/remote-agent.ts';
const KINDS = ['http', 'agui', 'responses', 'a2a'] as const;
type Kind = (typeof KINDS)[number];
const PATHS: Readonly<Record<Kind, string>> = { http: '/http', agui: '/agui', responses: '/v1', a2a: '/a2a' };
const SECRET = 'the secret of the agent of a benchmark';

interface Size {
  readonly rounds: number;
  readonly users: number;
  /** Of a round and front end; the log of a user keeps 1,000. */
  readonly events: number;
  readonly turns: number;
}
const FULL: Size = { rounds: 3, users: 50, events: 5_000, turns: 100 };
const QUICK: Size = { rounds: 1, users: 4, events: 40, turns: 3 };

/** Microseconds of CPU per event. */
type Cost = readonly [gateway: number, redis: number];

class Events {
  readonly #redis: Redis;
  readonly #keys = new Keys(KEY_PREFIX);
  readonly #log: UserLogWriter;

  constructor(redis: Redis) {
    this.#redis = redis;
    const deps = { redis, keys: this.#keys, metrics: new Metrics(), tracing: NO_TRACING };
    this.#log = new UserLogWriter(deps, { length: 1_000, maxAgeMs: 3_600_000, maxBytes: 8_388_608 });
  }

  /** Begins the run of a user; a user of a connection without a run gets events of a run that does not exist. */
  async begin(userId: string): Promise<string> {
    const [runId = 'run_benchmark'] = await this.#redis.zrange(this.#keys.user(userId).runs, '0', '0');
    const fields = { ...thinkingFields(userId, 0), run_id: runId, thread_id: 'chat-1', thought: '' };
    await this.#log.append({ userId, events: [{ type: 'agent_started', fields }] });
    return runId;
  }

  append(userId: string, runId: string, at: number): Promise<unknown> {
    // One step, so that the pieces are those of one text.
    const fields = { ...thinkingFields(userId, at), run_id: runId, thread_id: 'chat-1', step: 1 };
    return this.#log.append({ userId, events: [{ type: 'agent_thinking', fields }] });
  }
}

/** Measures the delivery of events, with a bounded number of appends in flight, to streams of one front end. */
async function measureEvents(bench: Bench, name: string, open: OpenStream, { users, events }: Size): Promise<Cost> {
  const { deployment, gateway, publisher } = bench;
  let received = 0;
  const run = Math.random().toString(36).slice(2, 8);
  const userIds = Array.from({ length: users }, (_, at) => `${run}-${at}`);
  const onEvents = (count: number) => {
    received += count;
  };
  const closers = await Promise.all(
    userIds.map((userId) => open({ url: gateway.url, token: deployment.token(userId), marker: MARKER, onEvents })),
  );
  const runIds = await Promise.all(userIds.map((userId) => publisher.begin(userId)));
  await delay(SETTLED_MS);
  const since = startCpuClock([gateway.pid, deployment.redisPid]);
  let next = 0;
  const appender = async () => {
    while (next < events) {
      const at = next++;
      await publisher.append(userIds[at % users] ?? '', runIds[at % users] ?? '', at);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, appender));
  for (const deadline = Date.now() + TIMEOUT_MS; received < events; await delay(5)) {
    if (Date.now() > deadline) throw new Error(`${name}: ${received} of ${events} events arrived`);
  }
  const [gatewayMicros = 0, redisMicros = 0] = since();
  for (const close of closers) close();
  await delay(SETTLED_MS);
  if (received !== events) throw new Error(`${name}: ${received} events arrived, of ${events}`);
  return [gatewayMicros / events, redisMicros / events];
}

interface Bench {
  readonly deployment: Deployment;
  readonly gateway: Started;
  readonly publisher: Events;
}

async function frontEndCosts(size: Size): Promise<ReadonlyMap<string, readonly Cost[]>> {
  const deployment = await Deployment.start();
  const redis = new Redis(deployment.redis.url);
  try {
    const bench = { deployment, gateway: await deployment.gateway(), publisher: new Events(redis) };
    const all = Object.entries(FRONT_ENDS);
    const costs = new Map(all.map(([name]) => [name, [] as Cost[]]));
    // The first round compiles the code.
    for (let round = size.rounds > 1 ? -1 : 0; round < size.rounds; round++) {
      progress(`front ends: round ${round + 1} of ${size.rounds}`);
      for (const at of all.keys()) {
        const [name, open] = all[(at + Math.max(0, round)) % all.length] ?? [];
        if (name === undefined || !open) continue;
        const cost = await measureEvents(bench, name, open, size);
        if (round >= 0) costs.get(name)?.push(cost);
      }
    }
    return costs;
  } finally {
    redis.disconnect();
    await deployment.close();
  }
}

/** One kind of remote agent: turns called directly, and through a gateway and a worker. */
interface TurnCosts {
  readonly directMs: readonly number[];
  readonly throughMs: readonly number[];
  /** Microseconds of CPU per turn of the agent when it is called directly, and of all when Tollgate calls it. */
  readonly direct: number;
  readonly through: readonly [agent: number, gateway: number, worker: number, redis: number];
}

async function startAgent(): Promise<{ readonly url: string; readonly process: ManagedProcess }> {
  const [port = 0] = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const child = new ManagedProcess({
    name: 'agent',
    command: process.execPath,
    args: [PEER, String(port)],
    env: process.env,
  });
  await whenReady(child, { name: 'agent', isReady: async () => (await httpStatus(url)) !== undefined });
  return { url, process: child };
}

/** Writes a catalogue with an agent of each kind. */
async function writeCatalogue(folder: string, url: string): Promise<void> {
  for (const name of ['plans.json', 'tools.json']) {
    await writeFile(join(folder, name), await readFile(join(PROJECT_ROOT, 'config', name)));
  }
  const agents = KINDS.map((kind) => ({
    name: kind,
    description: kind,
    kind,
    url: url + PATHS[kind],
    ...(kind === 'http' ? { secret: '$' + '{BENCH_AGENT_SECRET}' } : {}),
  }));
  await writeFile(join(folder, 'agents.json'), JSON.stringify({ default: 'http', agents }));
}

const BODIES: Readonly<Record<Kind, object>> = {
  http: { message: 'How is it?' },
  agui: { threadId: 't', runId: 'r', messages: [{ id: 'm', role: 'user', content: 'How is it?' }] },
  responses: { model: 'm', input: [{ role: 'user', content: 'How is it?' }], stream: true },
  a2a: { jsonrpc: '2.0', id: 1, method: 'SendStreamingMessage', params: {} },
};

async function callDirectly(url: string, kind: Kind): Promise<void> {
  const path = kind === 'responses' ? '/v1/responses' : PATHS[kind];
  const response = await fetch(url + path, { method: 'POST', body: JSON.stringify(BODIES[kind]) });
  if (!(await response.text()).includes('piece 9')) throw new Error(`${kind}: no answer`);
}

async function callThrough(client: Client, kind: Kind): Promise<void> {
  const end = client.next('agent_completed');
  client.send('agent_request', { message: 'How is it?', agent: kind });
  await end;
}

async function timed(count: number, work: () => Promise<void>): Promise<number[]> {
  const times: number[] = [];
  for (let at = 0; at < count; at++) {
    const startedAt = performance.now();
    await work();
    times.push(performance.now() - startedAt);
  }
  return times;
}

async function remoteTurns({ turns }: Size): Promise<ReadonlyMap<Kind, TurnCosts>> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-bench-'));
  const agent = await startAgent();
  const deployment = await Deployment.start();
  try {
    await writeCatalogue(folder, agent.url);
    const env = { CATALOGUE_DIR: folder, BENCH_AGENT_SECRET: SECRET };
    const gateway = await deployment.gateway(env);
    const worker = await deployment.worker(env);
    const costs = new Map<Kind, TurnCosts>();
    for (const kind of KINDS) {
      progress(`remote agents: ${turns} turns of kind ${kind}, each way`);
      const client = await connectWs(gateway.url, deployment.token(`bench-${kind}`, 'enterprise'));
      const agentPid = agent.process.pid ?? 0;
      await timed(Math.ceil(turns / 4), () => callDirectly(agent.url, kind));
      await timed(Math.ceil(turns / 4), () => callThrough(client, kind));
      const sinceDirect = startCpuClock([agentPid]);
      const directMs = await timed(turns, () => callDirectly(agent.url, kind));
      const [direct = 0] = sinceDirect();
      const sinceThrough = startCpuClock([agentPid, gateway.pid, worker.pid, deployment.redisPid]);
      const throughMs = await timed(turns, () => callThrough(client, kind));
      const [ofAgent = 0, ofGateway = 0, ofWorker = 0, ofRedis = 0] = sinceThrough().map((micros) => micros / turns);
      const through = [ofAgent, ofGateway, ofWorker, ofRedis] as const;
      costs.set(kind, { directMs, throughMs, direct: direct / turns, through });
      client.close();
    }
    return costs;
  } finally {
    await deployment.close();
    await agent.process.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Measures what an event costs on each front end, and what a remote agent's turn costs beyond a direct call. */
export async function frontEnds({ quick }: BenchOptions): Promise<Report> {
  const size = quick ? QUICK : FULL;
  const events = await frontEndCosts(size);
  const turns = await remoteTurns(size);
  const raw = median((events.get('raw WebSocket') ?? []).map(([gateway]) => gateway));
  return {
    name: 'Front ends and remote agents',
    about: [
      `${size.events} events of about 400 bytes to ${size.users} streams, ${IN_FLIGHT} appends in flight, one gateway;`,
      `medians of ${size.rounds} rounds (smallest–greatest), front ends in turn. Redis: with the append to the log.`,
      `Remote agents answer at once with 10 pieces of text; ${size.turns} turns each way, one at a time.`,
    ].join('\n'),
    tables: [
      {
        title: 'CPU per event, µs',
        header: ['front end', 'gateway', 'beside raw WebSocket', 'Redis'],
        rows: [...events].map(([name, costs]) => {
          const gateway = costs.map(([micros]) => micros);
          const redis = costs.map(([, micros]) => micros);
          const ratio = (median(gateway) / raw).toFixed(2);
          return [name, medianAndRange(gateway, 1), ratio, medianAndRange(redis, 1)];
        }),
      },
      {
        title: 'A turn of a remote agent: ms at the client, and CPU, µs',
        header: ['kind', 'direct p50', 'through p50', 'agent alone', 'agent', 'gateway', 'worker', 'Redis'],
        rows: [...turns].map(([kind, { directMs, throughMs, direct, through }]) => [
          kind,
          ...[directMs, throughMs].map((times) => percentile(times, 0.5).toFixed(1)),
          ...[direct, ...through].map((micros) => micros.toFixed(0)),
        ]),
      },
    ],
    data: { size, events: Object.fromEntries(events), turns: Object.fromEntries(turns) },
  };
}

if (import.meta.main) await runAsProgram([frontEnds]);
