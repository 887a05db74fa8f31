import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';
import { io } from 'socket.io-client';
import type { RunEvent } from '../../packages/client/src/events.ts';
import { Tollgate } from '../../packages/client/src/tollgate.ts';
import { socketIoTransport } from '../../packages/client/src/transports/socketio.ts';
import { sseTransport } from '../../packages/client/src/transports/sse.ts';
import type { OpenTransport } from '../../packages/client/src/transports/transport.ts';
import { type WebSocketClass, webSocketTransport } from '../../packages/client/src/transports/websocket.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, HAPROXY, PYTHON_CLIENTS } from '../support/programs.ts';
import { upTo } from '../support/runs.ts';
import { type StackProcesses, useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

const NODES = 3;
/** Runs per transport. `npm run faults` sets 1,000. */
const RUNS = Number(process.env.CLIENT_RUNS ?? 30);
const CLIENTS = 5;
/** Runs between two kills: few enough that each gateway is killed once, and every client is hit. */
const RUNS_PER_KILL = 10;

const TRANSPORTS: Readonly<Record<string, OpenTransport>> = {
  WebSocket: webSocketTransport(globalThis.WebSocket as unknown as WebSocketClass),
  'Socket.IO': socketIoTransport(io, { transports: ['websocket'] }),
  SSE: sseTransport(),
  'Socket.IO long polling': socketIoTransport(io, { transports: ['polling'] }),
};

const processes = useStack({
  gateways: NODES,
  workers: 1,
  env: { MESSAGE_RATE_PER_MINUTE: '100000', MAX_CONNECTIONS_PER_USER: '50', CONNECTION_LEASE_SECONDS: '3' },
});

const PYTHON_TRANSPORTS = ['websocket', 'socketio', 'sse', 'polling'];

const PYTHON_CLIENT = join(PROJECT_ROOT, 'packages/python/tests/run_again.py');

/**
 * Kills one gateway after the other, each time `RUNS_PER_KILL` runs have ended, and starts it again. The next kill does
 * not wait for the start: on a fast machine the runs end sooner.
 */
async function killGateways(stack: StackProcesses, endedRuns: () => number, isDone: () => boolean): Promise<number> {
  const starts = new Map<number, Promise<void>>();
  let kills = 0;
  while (!isDone()) {
    if (endedRuns() < kills * RUNS_PER_KILL + RUNS_PER_KILL / 2) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      continue;
    }
    const node = kills % NODES;
    await starts.get(node);
    await stack.gateways[node]?.kill('SIGKILL');
    starts.set(node, stack.gateways[node]?.start() ?? Promise.resolve());
    kills += 1;
  }
  await Promise.all(starts.values());
  return kills;
}

interface Seen {
  readonly seqs: number[];
  readonly runs: string[][];
  reconnects: number;
}

/** One client that runs an agent again and again, and counts what it receives. */
async function runAgain(url: string, transport: OpenTransport, runs: number, ended: () => void): Promise<Seen> {
  const { token } = mintToken({ plan: 'developer' }, { stack: processes().addresses });
  const client = new Tollgate({ url, transport, getToken: () => token, backoff: { firstMs: 50, maxMs: 500 } });
  closeAfter('test', () => client.close());
  const seen: Seen = { seqs: [], runs: [], reconnects: 0 };
  client.on('event', ({ seq }) => seen.seqs.push(seq));
  client.on('state', (state) => {
    if (state === 'waiting') seen.reconnects += 1;
  });
  for (let run = 0; run < runs; run++) {
    const types: RunEvent['type'][] = [];
    for await (const { type } of client.run('How is my workload doing?')) types.push(type);
    seen.runs.push(types);
    ended();
  }
  client.close();
  return seen;
}

/** The same, with the Python client in a process of its own. */
async function runAgainInPython(url: string, transport: string, runs: number, ended: () => void): Promise<Seen> {
  const { token } = mintToken({ plan: 'developer' }, { stack: processes().addresses });
  // Its HTTP client stores cookies for names, not for addresses.
  const named = url.replace('127.0.0.1', 'localhost');
  const args = ['-B', PYTHON_CLIENT, transport, named, token, String(runs)];
  const child = spawn(PYTHON_CLIENTS.command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  closeAfter('test', () => void child.kill('SIGKILL'));
  let [output, errors] = ['', ''];
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk;
    for (const _ of chunk.toString().matchAll(/^ended$/gm)) ended();
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`the client ended with ${code}: ${errors.slice(-2_000)}`);
  return JSON.parse(output);
}

/** Runs all clients while gateways are killed, and expects that they saw nothing of it but reconnects. */
async function expectWholeRuns(
  run: (url: string, runs: number, ended: () => void) => Promise<Seen>,
  attempts = 3,
): Promise<void> {
  const stack = processes();
  const { url } = await startLoadBalancer(stack.gateways.map((gateway) => gateway.url));
  let ended = 0;
  let isDone = false;
  const killing = killGateways(
    stack,
    () => ended,
    () => isDone,
  );
  const onEnded = () => {
    ended += 1;
  };
  const clients = Array.from({ length: CLIENTS }, () => run(url, RUNS / CLIENTS, onEnded));
  const all = await Promise.all(clients).finally(() => {
    isDone = true;
  });
  expect(await killing).toBeGreaterThan(0);
  for (const { seqs, runs } of all) {
    expect(seqs).toEqual(upTo(seqs.length));
    expect(runs).toHaveLength(RUNS / CLIENTS);
    for (const types of runs) {
      expect([types[0], types.at(-1)]).toEqual(['agent_started', 'agent_completed']);
      expect(types.filter((type) => type === 'agent_completed')).toHaveLength(1);
    }
  }
  // A kill reaches no client while all of them are on other nodes.
  const reconnects = all.reduce((sum, seen) => sum + seen.reconnects, 0);
  if (reconnects === 0 && attempts > 1) return expectWholeRuns(run, attempts - 1);
  expect(reconnects).toBeGreaterThan(0);
}

describeWith(HAPROXY, 'a client package behind a load balancer whose gateways are killed', () => {
  it.each(Object.keys(TRANSPORTS))(
    `yields every event of every run once, in order, over %s (${RUNS} runs)`,
    (name) => expectWholeRuns((url, runs, ended) => runAgain(url, TRANSPORTS[name] as OpenTransport, runs, ended)),
    60_000 + RUNS * 500,
  );

  describeWith(PYTHON_CLIENTS, 'in Python', () => {
    it.each(PYTHON_TRANSPORTS)(
      `yields every event of every run once, in order, over %s (${RUNS} runs)`,
      (name) => expectWholeRuns((url, runs, ended) => runAgainInPython(url, name, runs, ended)),
      60_000 + RUNS * 500,
    );
  });
});
