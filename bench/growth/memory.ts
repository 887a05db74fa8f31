import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { type Client, connectWs } from '../lib/clients.ts';
import { Deployment } from '../lib/deployment.ts';
import type { ReportTable } from '../lib/report.ts';

/** Ingestion into the ledger has ended, and the outboxes are trimmed. */
const SETTLED_MS = 1_500;
const LARGEST = 16;

/** Memory of Redis per user with one connection, one run with a tool call, and one further tool call. */
export async function memoryByKey(users: number): Promise<ReportTable> {
  const deployment = await Deployment.start();
  const redis = new Redis(deployment.redis.url);
  const clients: Client[] = [];
  try {
    const [{ url }] = await Promise.all([deployment.gateway(), deployment.worker()]);
    const prepared = await connectWs(url, deployment.token('warm-up'));
    await turnAndCall(prepared);
    prepared.close();
    await delay(SETTLED_MS);
    const before = await usedMemory(redis);
    for (let at = 0; at < users; at++) clients.push(await connectWs(url, deployment.token(`measured-${at}`)));
    for (const client of clients) await turnAndCall(client);
    await delay(SETTLED_MS);
    const perUser = ((await usedMemory(redis)) - before) / users;
    const kinds = [...(await bytesByKind(redis))].toSorted(([, a], [, b]) => b - a);
    const ofKeys = kinds.reduce((sum, [, bytes]) => sum + bytes, 0) / users;
    return {
      title: 'Memory of Redis per user, bytes',
      header: ['key', 'bytes'],
      rows: [
        ['used memory, with the share of ledger, outbox and queue', String(Math.round(perUser))],
        ['all keys of the user', String(Math.round(ofKeys))],
        ...kinds.slice(0, LARGEST).map(([kind, bytes]) => [kind, String(Math.round(bytes / users))]),
      ],
    };
  } finally {
    for (const client of clients) client.close();
    redis.disconnect();
    await deployment.close();
  }
}

async function turnAndCall(client: Client): Promise<void> {
  const completed = client.next('agent_completed');
  client.send('agent_request', { message: 'How is my workload doing?' });
  await completed;
  const result = client.next('tool_result');
  client.send('tool_call', { tool: 'list_agents' });
  await result;
}

/** Sums MEMORY USAGE by the kind of the key: its name without partition, user and ids. */
async function bytesByKind(redis: Redis): Promise<Map<string, number>> {
  const kinds = new Map<string, number>();
  for await (const found of redis.scanStream({ match: '*:measured-*', count: 1_000 })) {
    for (const key of found as string[]) {
      const kind = /:measured-\d+:([a-z-]+)/.exec(key)?.[1] ?? key;
      kinds.set(kind, (kinds.get(kind) ?? 0) + Number(await redis.memory('USAGE', key, 'SAMPLES', 0)));
    }
  }
  return kinds;
}

async function usedMemory(redis: Redis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);
}
