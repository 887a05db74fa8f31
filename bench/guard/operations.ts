import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { Keys } from '../../src/redis/keys.ts';
import { type Client, connectSocketIo, connectWs } from '../lib/clients.ts';
import { type Deployment, KEY_PREFIX } from '../lib/deployment.ts';
import type { RedisMeter, TrafficByName } from '../lib/redis-meter.ts';
import type { ScriptCommands, ScriptMonitor } from '../lib/script-monitor.ts';
import { median } from '../lib/statistics.ts';
import { thinkingFields } from '../lib/user-events.ts';

/** Counters of one operation, by name. */
export type Counters = Readonly<Record<string, number>>;

/** An operation has ended, with what follows it, when no counted command was sent for this long. */
const QUIET_MS = 40;
/** Bound of the wait for that. */
const MAX_WINDOWS = 200;
/**
 * Commands of periodic work, which belong to no operation; the operation `idle minute` counts them. A blocking read
 * (`xreadgroup`) is repeated every second. Runs that ended are removed (`xdel`, `xack`) together, some time after the
 * last operation of each.
 */
const PERIODIC: ReadonlySet<string> = new Set([
  ...['ping', 'info', 'time', 'exists', 'hgetall', 'hmget', 'xrange', 'xread', 'xtrim', 'zrange', 'zrangebyscore'],
  ...['xreadgroup', 'xautoclaim', 'xlen', 'xpending', 'xdel', 'xack'],
  ...['renewNode', 'renewLeases', 'ingestUsage', 'claimDueTokens', 'duePartitions', 'takeTasks', 'zcard', 'zcount'],
  ...['agent-runs: getCounts', 'agent-runs: moveStalledJobsToWait', 'agent-runs: extendLocks'],
]);
/** Only the queue of runs works for operations; a script sent as text is one that Redis did not have yet. */
const isCounted = (name: string) =>
  !PERIODIC.has(name) && (!name.includes(': ') || name.startsWith('agent-runs: ')) && !name.endsWith('(text)');

export interface Meters {
  readonly gateway: RedisMeter;
  readonly worker: RedisMeter;
  readonly monitor: ScriptMonitor;
}

/** Counts the commands, bytes and script commands of one operation at a time, as medians of its repetitions. */
class OperationCounter {
  readonly #meters: Meters;
  readonly #counted = new Map<string, Counters[]>();

  constructor(meters: Meters) {
    this.#meters = meters;
  }

  async count<T>(operation: string, work: () => T | Promise<T>): Promise<T> {
    await this.#take();
    const result = await work();
    this.#counted.set(operation, [...(this.#counted.get(operation) ?? []), await this.#takeUntilQuiet()]);
    return result;
  }

  /** Forgets the warm-up, in which Redis receives the text of some scripts. */
  forget(): void {
    this.#counted.clear();
  }

  medians(): Record<string, Counters> {
    return Object.fromEntries(
      [...this.#counted].map(([operation, rounds]) => {
        const names = new Set(rounds.flatMap((round) => Object.keys(round)));
        const values = [...names].toSorted().map((name) => {
          return [name, median(rounds.map((round) => round[name] ?? 0))] as const;
        });
        return [operation, Object.fromEntries(values.filter(([, value]) => value > 0))];
      }),
    );
  }

  async #takeUntilQuiet(): Promise<Counters> {
    const sum: Record<string, number> = {};
    for (let at = 0; at < MAX_WINDOWS; at++) {
      await delay(QUIET_MS);
      const counters = Object.entries(await this.#take());
      for (const [name, value] of counters) sum[name] = (sum[name] ?? 0) + value;
      if (counters.length === 0) return sum;
    }
    throw new Error(`commands without an end: ${Object.keys(sum).join(', ')}`);
  }

  async #take(): Promise<Counters> {
    const { gateway, worker, monitor } = this.#meters;
    const scripts = await monitor.take();
    return {
      ...trafficCounters('gateway', gateway.take()),
      ...trafficCounters('worker', worker.take()),
      ...scriptCounters(scripts),
    };
  }
}

function trafficCounters(process: string, traffic: TrafficByName): Counters {
  const counters: Record<string, number> = {};
  let [sent, received] = [0, 0];
  for (const [name, one] of traffic) {
    if (!isCounted(name)) continue;
    counters[`${process}: ${name}`] = one.calls;
    sent += one.sent;
    received += one.received;
  }
  if (sent > 0) counters[`${process} bytes to Redis`] = sent;
  if (received > 0) counters[`${process} bytes from Redis`] = received;
  return counters;
}

/** Sums the commands that counted scripts executed: `in scripts: xadd`. */
function scriptCounters(scripts: ScriptCommands): Counters {
  const counters: Record<string, number> = {};
  for (const [script, commands] of scripts) {
    if (script === '' || !isCounted(script)) continue;
    for (const [command, number] of commands) {
      if (command === 'calls') continue;
      const name = `in scripts: ${command}`;
      counters[name] = (counters[name] ?? 0) + number;
    }
  }
  return counters;
}

/** Counts what connects, messages, turns, deliveries and resumes cost in Redis. */
export async function countOperations(
  deployment: Deployment,
  url: string,
  meters: Meters,
  repetitions: number,
): Promise<Record<string, Counters>> {
  const counter = new OperationCounter(meters);
  const publisher = new Redis(deployment.redis.url);
  const log = new UserLogWriter(
    { redis: publisher, keys: new Keys(KEY_PREFIX), metrics: new Metrics(), tracing: NO_TRACING },
    { length: 1_000, maxAgeMs: 24 * 3_600_000, maxBytes: 8_388_608 },
  );
  const append = (userId: string, at: number) =>
    log.append({ userId, events: [{ type: 'agent_thinking', fields: thinkingFields(userId, at) }] });
  try {
    for (let round = 0; round <= repetitions; round++) {
      if (round === 1) counter.forget();
      // Equal lengths, so that the bytes of all rounds are equal.
      const user = `user-${Math.random().toString(36).padEnd(12, '0').slice(2, 12)}`;
      await countRound(counter, url, { user, token: deployment.token(user), append: (at) => append(user, at) });
    }
    return counter.medians();
  } finally {
    publisher.disconnect();
  }
}

interface RoundOptions {
  readonly user: string;
  readonly token: string;
  /** Appends a durable event to the user's log, as a worker does. */
  readonly append: (at: number) => Promise<unknown>;
}

async function countRound(counter: OperationCounter, url: string, { token, append }: RoundOptions): Promise<void> {
  const first = await counter.count('connect, raw WebSocket', () => connectWs(url, token));
  const second = await counter.count('connect, second of the user', () => connectWs(url, token));
  const third = await counter.count('connect, Socket.IO', () => connectSocketIo(url, token));
  await counter.count('message, limited', () => ask(first, 'ping', 'pong'));
  await counter.count('turn, one tool call', () => {
    return ask(first, 'agent_request', 'agent_completed', { message: 'How is my workload doing?' });
  });
  await counter.count('tool call', () => ask(first, 'tool_call', 'tool_result', { tool: 'list_agents' }));
  await counter.count('durable delivery', async () => {
    const arrived = first.next('agent_thinking');
    await append(1);
    await arrived;
  });
  const from = { after: 0, epoch: first.welcome.epoch };
  await counter.count('resume', () => ask(second, 'resume', 'resumed', from));
  await counter.count('disconnect', () => second.close());
  await counter.count('disconnect, Socket.IO', () => third.close());
  await counter.count('disconnect, last of the user', () => first.close());
}

function ask(client: Client, type: string, answer: string, fields = {}): Promise<unknown> {
  const answered = client.next(answer);
  client.send(type, fields);
  return answered;
}
