import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { Keys } from '../../src/redis/keys.ts';
import { type Client, connectWs } from '../lib/clients.ts';
import { commandName } from '../lib/command-names.ts';
import { type Deployment, KEY_PREFIX } from '../lib/deployment.ts';
import type { RedisMeter } from '../lib/redis-meter.ts';
import { median } from '../lib/statistics.ts';
import { thinkingFields } from '../lib/user-events.ts';

/** Redis keeps this many entries of its slow log, which records every command here. */
const SLOW_LOG = 20_000;
const SETTLED_MS = 700;

/** The cost of one operation at one size. */
export interface OperationCost {
  readonly operation: string;
  /** Requests that the gateway sends to Redis, and their bytes. */
  readonly requests: number;
  readonly bytes: number;
  /** Time of the operation's scripts in Redis, µs: the sum of the medians per script. */
  readonly scriptMicros: number;
}

type SlowLogEntry = readonly [id: number, time: number, micros: number, args: readonly string[]];

/** Repeats operations of fresh users on a gateway, and reads their cost from the meter and the slow log of Redis. */
export class GrowthMeter {
  readonly #deployment: Deployment;
  readonly #redis: Redis;
  readonly #log: UserLogWriter;

  constructor(deployment: Deployment) {
    this.#deployment = deployment;
    this.#redis = new Redis(deployment.redis.url);
    this.#log = new UserLogWriter(
      { redis: this.#redis, keys: new Keys(KEY_PREFIX), metrics: new Metrics(), tracing: NO_TRACING },
      { length: 1_000, maxAgeMs: 24 * 3_600_000, maxBytes: 8_388_608 },
    );
  }

  get redis(): Redis {
    return this.#redis;
  }

  /** Appends events to the log of a user, in batches. */
  async append(userId: string, events: number): Promise<void> {
    for (let at = 0; at < events; at++) {
      await this.#log.append({ userId, events: [{ type: 'agent_thinking', fields: thinkingFields(userId, at) }] });
    }
  }

  /**
   * Measures connect, message, append with delivery, resume and turn.
   * @param logLength events in the log of each user before
   */
  async measure(
    url: string,
    meter: RedisMeter,
    { repetitions, logLength = 0 }: { readonly repetitions: number; readonly logLength?: number },
  ): Promise<OperationCost[]> {
    const run = Math.random().toString(36).slice(2, 10).padEnd(8, '0');
    const ids = Array.from({ length: repetitions }, (_, at) => `${run}-${String(at).padStart(4, '0')}`);
    await Promise.all(ids.map((id) => this.append(id, logLength)));
    const clients: Client[] = [];
    const each = (work: (client: Client, id: string) => Promise<unknown>) => async () => {
      for (const [at, id] of ids.entries()) {
        const client = clients[at];
        if (client) await work(client, id);
      }
    };
    const costs = [
      await this.#cost('connect', repetitions, meter, async () => {
        for (const id of ids) clients.push(await connectWs(url, this.#deployment.token(id)));
      }),
      await this.#cost(
        'message',
        repetitions,
        meter,
        each((client) => ask(client, 'ping', 'pong')),
      ),
      await this.#cost(
        'append and deliver',
        repetitions,
        meter,
        each(async (client, id) => {
          const arrived = client.next('agent_thinking');
          await this.append(id, 1);
          await arrived;
        }),
      ),
      await this.#cost(
        'turn',
        repetitions,
        meter,
        each((client) => {
          return ask(client, 'agent_request', 'agent_completed', { message: 'How is my workload doing?' });
        }),
      ),
    ];
    for (const client of clients) client.close();
    await delay(SETTLED_MS);
    return costs;
  }

  close(): void {
    this.#redis.disconnect();
  }

  async #cost(
    operation: string,
    repetitions: number,
    meter: RedisMeter,
    work: () => Promise<void>,
  ): Promise<OperationCost> {
    await this.#redis.config('SET', 'slowlog-max-len', SLOW_LOG, 'slowlog-log-slower-than', 0);
    await this.#redis.slowlog('RESET');
    meter.take();
    await work();
    const traffic = [...meter.take()].filter(([name]) => !PERIODIC.has(name));
    const entries = (await this.#redis.slowlog('GET', SLOW_LOG)) as unknown as SlowLogEntry[];
    await this.#redis.config('SET', 'slowlog-log-slower-than', -1);
    const perScript = new Map<string, number[]>();
    for (const [, , micros, args] of entries) {
      if (!/^evalsha$/i.test(args[0] ?? '')) continue;
      const name = commandName(args);
      if (!isOfOperation(name)) continue;
      perScript.set(name, [...(perScript.get(name) ?? []), micros]);
    }
    const scripts = [...perScript.values()].map((micros) => median(micros) * (micros.length / repetitions));
    const sum = (pick: (one: { calls: number; sent: number; received: number }) => number) =>
      traffic.reduce((total, [, one]) => total + pick(one), 0) / repetitions;
    return {
      operation,
      requests: Math.round(sum(({ calls }) => calls) * 10) / 10,
      bytes: Math.round(sum(({ sent, received }) => sent + received)),
      scriptMicros: Math.round(scripts.reduce((total, micros) => total + micros, 0)),
    };
  }
}

const PERIODIC: ReadonlySet<string> = new Set(['ping', 'renewNode', 'xrange']);
const OWN_TIME: ReadonlySet<string> = new Set(['takeTasks', 'duePartitions', 'renewNode', 'claimDueTokens']);

/** The ingestion of the turn's record counts, periodic work does not. */
function isOfOperation(name: string): boolean {
  return !OWN_TIME.has(name) && (!name.includes(': ') || /^agent-runs: (?:add|moveTo)/.test(name));
}

function ask(client: Client, type: string, answer: string, fields = {}): Promise<unknown> {
  const answered = client.next(answer);
  client.send(type, fields);
  return answered;
}
