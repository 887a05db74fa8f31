import { setTimeout as delay } from 'node:timers/promises';
import { type Client, connectSocketIo, connectWs } from '../lib/clients.ts';
import type { Deployment } from '../lib/deployment.ts';
import type { Inspector } from '../lib/inspector.ts';
import type { ScriptMonitor } from '../lib/script-monitor.ts';
import type { Counters } from './operations.ts';

/** The resume grace of a connection is over by then, and what its handshake needed is garbage. */
const SETTLED_MS = 400;
/** Constructors whose instances are counted by name; `objects` counts all. */
const COUNTED = ['objects', 'Function', 'Timeout', 'listeners', 'Promise', 'Map', 'Set', 'Array', 'heap bytes'];
const MINUTE_MS = 60_000;

interface HeapOptions {
  readonly url: string;
  /** Connections between the two counts; the first count sees as many, so that fixed costs cancel out. */
  readonly connections: number;
  readonly messages: number;
}

/** Counts the objects that a connection holds, and the bytes that a message allocates, per transport. */
export async function countProcessCosts(
  deployment: Deployment,
  inspector: Inspector,
  { url, connections, messages }: HeapOptions,
): Promise<Record<string, Counters>> {
  const costs: Record<string, Counters> = {};
  for (const [transport, connect] of [
    ['raw WebSocket', connectWs],
    ['Socket.IO', connectSocketIo],
  ] as const) {
    const clients: Client[] = [];
    const open = async (number: number) => {
      for (let i = 0; i < number; i++) {
        clients.push(await connect(url, deployment.token(`${transport[0]}-${clients.length}`)));
      }
      await delay(SETTLED_MS);
    };
    await open(connections);
    const before = await inspector.countObjects();
    await open(connections);
    const after = await inspector.countObjects();
    const counters = COUNTED.map((name) => {
      const each = ((after[name] ?? 0) - (before[name] ?? 0)) / connections;
      return [`${name} held`, name === 'heap bytes' ? Math.round(each) : Math.round(each * 10) / 10] as const;
    });
    costs[`connection, ${transport}`] = Object.fromEntries(counters.filter(([, value]) => value > 0));
    const allocated = await inspector.allocatedBytes(() => exchange(clients, messages));
    costs[`message, ${transport}`] = { 'bytes allocated': Math.round(allocated / messages) };
    for (const client of clients) client.close();
  }
  return costs;
}

/** Sends pings, one at a time per client. */
async function exchange(clients: readonly Client[], messages: number): Promise<void> {
  const each = Math.ceil(messages / clients.length);
  await Promise.all(
    clients.map(async (client) => {
      for (let i = 0; i < each; i++) {
        const answered = client.next('pong');
        client.send('ping');
        await answered;
      }
    }),
  );
}

/** Counts the commands of a deployment that does nothing, per minute. */
export async function countIdleMinute(monitor: ScriptMonitor, windowMs: number): Promise<Counters> {
  await monitor.take();
  const startedAt = performance.now();
  await delay(windowMs);
  const commands = await monitor.take();
  const perMinute = MINUTE_MS / (performance.now() - startedAt);
  let [sent, scripts, added] = [0, 0, 0];
  for (const [script, counts] of commands) {
    const all = [...counts.values()].reduce((sum, number) => sum + number, 0);
    if (script === '') sent += all;
    else {
      sent += counts.get('calls') ?? 0;
      scripts += counts.get('calls') ?? 0;
      added += counts.get('xadd') ?? 0;
    }
  }
  const rounded = (number: number) => Math.round(number * perMinute);
  return { 'commands sent': rounded(sent), 'scripts run': rounded(scripts), 'stream entries added': rounded(added) };
}
