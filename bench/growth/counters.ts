import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { Keys } from '../../src/redis/keys.ts';
import { type Client, connectWs } from '../lib/clients.ts';
import { commandName } from '../lib/command-names.ts';
import { startCpuClock } from '../lib/cpu.ts';
import { type Deployment, KEY_PREFIX, type Started } from '../lib/deployment.ts';
import type { RedisMeter } from '../lib/redis-meter.ts';
import { median } from '../lib/statistics.ts';
import { thinkingFields } from '../lib/user-events.ts';

/** Redis keeps this many entries of its slow log, which records every command here. */
const SLOW_LOG = 20_000;
const SETTLED_MS = 700;
/** Duration of the measurement of what a deployment does without operations. */
const IDLE_MS = 3_000;

/** The cost of one operation at one size. */
export interface OperationCost {
  readonly operation: string;
  /** Requests that the gateways send to Redis, and their bytes. */
  readonly requests: number;
  readonly bytes: number;
  /** Commands that Redis executes, those within scripts included. */
  readonly commands: number;
  /** Time of the operation's scripts in Redis, µs: the sum of the medians per script. */
  readonly scriptMicros: number;
  /** CPU time of all gateways, of the worker and of Redis, µs. */
  readonly cpuMicros: readonly [gateways: number, worker: number, redis: number];
}

/** The measured processes: the gateways, whose clients are spread over them, and their worker. */
export interface Measured {
  readonly gateways: readonly Started[];
  readonly worker: Started;
  readonly meter: RedisMeter;
}

/** What the processes do per millisecond without operations. It is subtracted from each operation. */
interface IdleRates {
  readonly commands: number;
  readonly cpuMicros: readonly number[];
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
   * Measures connect, message, append with delivery, tool call and turn.
   * @param logLength events in the log of each user before
   */
  async measure(
    measured: Measured,
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
    const connect = async () => {
      for (const [at, id] of ids.entries()) {
        const { url } = measured.gateways[at % measured.gateways.length] ?? { url: '' };
        clients.push(await connectWs(url, this.#deployment.token(id)));
      }
    };
    const deliver = each(async (client, id) => {
      const arrived = client.next('agent_thinking');
      await this.append(id, 1);
      await arrived;
    });
    const message = { message: 'How is my workload doing?' };
    const works: [operation: string, work: () => Promise<void>][] = [
      ['connect', connect],
      ['message', each((client) => ask(client, 'ping', 'pong'))],
      ['append and deliver', deliver],
      ['tool call', each((client) => ask(client, 'tool_call', 'tool_result', { tool: 'list_agents' }))],
      ['turn', each((client) => ask(client, 'agent_request', 'agent_completed', message))],
    ];
    const idle = await this.#idle(measured);
    const costs: OperationCost[] = [];
    for (const [operation, work] of works)
      costs.push(await this.#cost(operation, { repetitions, measured, idle }, work));
    for (const client of clients) client.close();
    await delay(SETTLED_MS);
    return costs;
  }

  close(): void {
    this.#redis.disconnect();
  }

  async #idle(measured: Measured): Promise<IdleRates> {
    const before = await this.#commands();
    const since = startCpuClock(this.#pids(measured));
    await delay(IDLE_MS);
    const cpuMicros = since().map((micros) => micros / IDLE_MS);
    return { commands: ((await this.#commands()) - before) / IDLE_MS, cpuMicros };
  }

  async #cost(
    operation: string,
    { repetitions, measured, idle }: { repetitions: number; measured: Measured; idle: IdleRates },
    work: () => Promise<void>,
  ): Promise<OperationCost> {
    const { meter } = measured;
    await this.#redis.config('SET', 'slowlog-max-len', SLOW_LOG, 'slowlog-log-slower-than', 0);
    await this.#redis.slowlog('RESET');
    meter.take();
    const before = await this.#commands();
    const since = startCpuClock(this.#pids(measured));
    const startedAt = performance.now();
    await work();
    const ms = performance.now() - startedAt;
    const cpu = since().map((micros, at) => micros - ms * (idle.cpuMicros[at] ?? 0));
    const commands = (await this.#commands()) - before - ms * idle.commands;
    const traffic = [...meter.take()].filter(([name]) => !PERIODIC.has(name));
    const sum = (pick: (one: { calls: number; sent: number; received: number }) => number) =>
      traffic.reduce((total, [, one]) => total + pick(one), 0) / repetitions;
    const each = (micros: readonly number[]) => {
      return Math.max(0, Math.round(micros.reduce((total, one) => total + one, 0) / repetitions));
    };
    const ofGateways = measured.gateways.length;
    return {
      operation,
      requests: Math.round(sum(({ calls }) => calls) * 10) / 10,
      bytes: Math.round(sum(({ sent, received }) => sent + received)),
      commands: Math.round((commands * 10) / repetitions) / 10,
      scriptMicros: Math.round(await this.#scriptMicros(repetitions)),
      cpuMicros: [
        each(cpu.slice(0, ofGateways)),
        each(cpu.slice(ofGateways, ofGateways + 1)),
        each(cpu.slice(ofGateways + 1)),
      ],
    };
  }

  /** Returns the time of the scripts in the slow log per operation, and ends the log. */
  async #scriptMicros(repetitions: number): Promise<number> {
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
    return scripts.reduce((total, micros) => total + micros, 0);
  }

  #pids({ gateways, worker }: Measured): number[] {
    return [...gateways.map(({ pid }) => pid), worker.pid, this.#deployment.redisPid];
  }

  /** Returns the number of commands that Redis has executed, those within scripts included. */
  async #commands(): Promise<number> {
    const stats = await this.#redis.info('commandstats');
    return [...stats.matchAll(/:calls=(\d+)/g)].reduce((sum, [, calls]) => sum + Number(calls), 0);
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
