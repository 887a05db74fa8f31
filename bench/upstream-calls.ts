import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, StreamableHTTPClientTransport, type Transport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { freePorts } from '../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, whenReady } from '../scripts/lib/processes.ts';
import { startCpuClock } from './lib/cpu.ts';
import { Deployment } from './lib/deployment.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { percentile } from './lib/statistics.ts';

const CALLS = 2_000;
const WARM_UP = 200;
const PEER = 'bench/peers/upstream.ts';
const TIMEOUT_MS = 20_000;

interface Way {
  readonly name: string;
  readonly client: Client;
  readonly tool: string;
  readonly args: Readonly<Record<string, unknown>>;
}

async function connected(transport: Transport): Promise<Client> {
  const client = new Client({ name: 'bench', version: '1' }, { versionNegotiation: { mode: 'auto' } });
  await client.connect(transport);
  return client;
}

async function discovered(client: Client, tool: string): Promise<void> {
  const deadlineAt = Date.now() + TIMEOUT_MS;
  while (Date.now() < deadlineAt) {
    const { tools } = await client.listTools(undefined, { cacheMode: 'refresh' });
    if (tools.some(({ name }) => name === tool)) return;
    await delay(100);
  }
  throw new Error(`the gateway does not offer ${tool}`);
}

/** Returns the duration of one call, in milliseconds. */
async function timeCall({ client, tool, args }: Way): Promise<number> {
  const startedAt = performance.now();
  const { isError } = await client.callTool({ name: tool, arguments: args });
  if (isError) throw new Error(`${tool} failed`);
  return performance.now() - startedAt;
}

/** Measures all ways in rotation, one call at a time, so that other load on the machine affects all of them alike. */
async function measure(ways: readonly Way[], calls: number): Promise<Map<string, number[]>> {
  const times = new Map(ways.map(({ name }) => [name, [] as number[]]));
  for (let at = 0; at < calls; at++) {
    for (const way of ways) times.get(way.name)?.push(await timeCall(way));
  }
  return times;
}

async function startPeer(): Promise<{ url: string; process: ManagedProcess }> {
  const [port = 0] = await freePorts(1);
  const url = `http://127.0.0.1:${port}/mcp`;
  const args = [PEER, String(port)];
  const peer = new ManagedProcess({ name: 'upstream', command: process.execPath, args, env: process.env });
  await whenReady(peer, { name: 'upstream', isReady: async () => (await httpStatus(url)) !== undefined });
  return { url, process: peer };
}

/** Writes a file for `TOOL_SERVERS`: the peer over HTTP, and as a program. */
async function writeServers(folder: string, url: string): Promise<string> {
  const tools = { echo: { permission: 'basic', units: 1 } };
  const program = { name: 'program', command: process.execPath, args: [PEER], tools };
  const file = join(folder, 'tool-servers.json');
  await writeFile(file, JSON.stringify({ servers: [{ name: 'remote', url, tools }, program] }));
  return file;
}

/** Measures the cost of a `tools/call` for an upstream tool through the gateway, compared with a direct call. */
export async function upstreamCalls({ quick }: BenchOptions): Promise<Report> {
  const calls = quick ? 50 : CALLS;
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-bench-'));
  const peer = await startPeer();
  const deployment = await Deployment.start();
  const clients: Client[] = [];
  try {
    const gateway = await deployment.gateway({ TOOL_SERVERS: await writeServers(folder, peer.url) });
    const requestInit = { headers: { authorization: `Bearer ${deployment.token('bench')}` } };
    const through = await connected(new StreamableHTTPClientTransport(new URL('/mcp', gateway.url), { requestInit }));
    const direct = await connected(new StreamableHTTPClientTransport(new URL(peer.url)));
    const piped = await connected(new StdioClientTransport({ command: process.execPath, args: [PEER] }));
    clients.push(through, direct, piped);
    await Promise.all([discovered(through, 'echo'), discovered(through, 'program__echo')]);
    const args = { words: 'hello' };
    const ways = [
      { name: 'HTTP server, directly', client: direct, tool: 'echo', args },
      { name: 'HTTP server, through the gateway', client: through, tool: 'echo', args },
      { name: 'program over stdio, directly', client: piped, tool: 'echo', args },
      { name: 'program over stdio, through the gateway', client: through, tool: 'program__echo', args },
      { name: 'tool of the gateway itself', client: through, tool: 'list_agents', args: {} },
    ];
    await measure(ways, quick ? 10 : WARM_UP);
    progress(`upstream calls: ${calls} each of ${ways.length} ways, in turn`);
    const sinceStart = startCpuClock([gateway.pid, deployment.redisPid]);
    const times = await measure(ways, calls);
    // Three of the ways lead through the gateway.
    return report(
      calls,
      times,
      sinceStart().map((micros) => micros / calls / 3),
    );
  } finally {
    for (const client of clients) await client.close();
    await deployment.close();
    await peer.process.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

function report(calls: number, times: ReadonlyMap<string, readonly number[]>, cpu: readonly number[]): Report {
  const shares = (values: readonly number[]) => [0.5, 0.99].map((share) => percentile(values, share).toFixed(2));
  const rows = [...times].map(([name, values]) => [name, ...shares(values)]);
  const processes = ['gateway', 'Redis'].map((name, at) => [name, (cpu[at] ?? Number.NaN).toFixed(0)]);
  return {
    name: 'Calls of upstream tools',
    about: `${calls} calls of an echo each way, in turn and one at a time; SDK client, 2026-07-28, one gateway.`,
    tables: [
      { title: 'One call, ms', header: ['way', 'p50', 'p99'], rows },
      { title: 'CPU of one call through the gateway, µs', header: ['process', 'per call'], rows: processes },
    ],
    data: { calls, times: Object.fromEntries(times), cpu },
  };
}

if (import.meta.main) await runAsProgram([upstreamCalls]);
