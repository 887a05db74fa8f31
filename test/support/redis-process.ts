import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis, type RedisOptions } from 'ioredis';
import { LOOPBACK } from '../../scripts/lib/ports.ts';
import { ManagedProcess } from '../../scripts/lib/processes.ts';
import { findRedisServer } from '../../scripts/lib/redis-server.ts';
import { until } from './until.ts';

/** Lines of a redis.conf; a name may occur several times. */
export type Settings = readonly (readonly [name: string, ...values: string[]])[];

export interface RedisProcessOptions {
  readonly port: number;
  readonly settings: Settings;
  readonly sentinel?: boolean;
  /** Connection options for `ask`: user and TLS. */
  readonly ask?: RedisOptions;
}

/** A Redis or Sentinel with its own configuration file, which it may rewrite. It can be stopped and restarted. */
export class RedisProcess {
  readonly port: number;
  readonly #dir: string;
  readonly #command: string;
  readonly #options: RedisProcessOptions;
  #process: ManagedProcess;

  private constructor(dir: string, command: string, options: RedisProcessOptions) {
    this.port = options.port;
    this.#dir = dir;
    this.#command = command;
    this.#options = options;
    this.#process = this.#launch();
  }

  static async start(options: RedisProcessOptions): Promise<RedisProcess> {
    const program = await findRedisServer();
    if (!program) throw new Error('there is no Redis server: npm test says how to install one');
    const dir = await mkdtemp(join(tmpdir(), 'tollgate-redis-'));
    const lines = [['bind', LOOPBACK], ['dir', dir], ...options.settings].map((words) => words.join(' '));
    await writeFile(join(dir, 'redis.conf'), `${lines.join('\n')}\n`);
    const redis = new RedisProcess(dir, program.command, options);
    try {
      await redis.#answers();
    } catch (error) {
      await redis.close();
      throw error;
    }
    return redis;
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** Runs `question` over a new connection. */
  async ask<T>(question: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = new Redis({
      host: LOOPBACK,
      port: this.port,
      lazyConnect: true,
      retryStrategy: () => null,
      commandTimeout: 2_000,
      ...this.#options.ask,
    });
    redis.on('error', () => {});
    try {
      await redis.connect();
      const answer = await question(redis);
      // Sentinels do not support QUIT.
      if (!this.#options.sentinel) await redis.quit();
      return answer;
    } finally {
      if (redis.status !== 'end') redis.disconnect();
    }
  }

  /** Resolves when the process has ended; at once for a signal that does not end it. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.#process.kill(signal);
    if (signal === 'SIGKILL' || signal === 'SIGTERM') await this.#process.exited;
  }

  /** Restarts at the same address, with its files. */
  async restart(): Promise<void> {
    this.#process = this.#launch();
    await this.#answers();
  }

  async close(): Promise<void> {
    if (this.#process.running) await this.kill();
    await rm(this.#dir, { recursive: true, force: true });
  }

  #launch(): ManagedProcess {
    const args = [join(this.#dir, 'redis.conf'), ...(this.#options.sentinel ? ['--sentinel'] : [])];
    return new ManagedProcess({ name: `redis ${this.port}`, command: this.#command, args, env: process.env });
  }

  async #answers(): Promise<void> {
    const answers = () => this.ask((redis) => redis.ping());
    await until(answers, { timeoutMs: 20_000, label: `an answer of Redis on ${this.port}: ${this.#process.output}` });
  }
}
