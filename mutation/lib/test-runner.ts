import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { type RedisServer, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { TestProcess, type TestRequest, type TestResult } from './test-process.ts';

/** No script of Tollgate takes longer, also on a loaded machine. Redis then answers other commands with BUSY. */
const ENDLESS_SCRIPT_MS = 2_000;
const PROBE_MS = 500;

/**
 * A Redis server and a process that runs tests with it. A mutant may leave data, or a script that never ends; neither
 * reaches the next run.
 */
export class TestRunner {
  readonly redis: Redis;
  readonly redisPort: number;
  readonly #process: TestProcess;
  #server: RedisServer;

  private constructor(server: RedisServer) {
    this.#server = server;
    this.redisPort = server.port;
    this.redis = new Redis(server.url);
    this.#process = new TestProcess({ ...process.env, TEST_REDIS_URL: server.url });
  }

  static async start(): Promise<TestRunner> {
    const runner = new TestRunner(await startRedisServer());
    await runner.#limitScripts();
    return runner;
  }

  /** Runs one test file, alone or with a mutant. */
  async run(request: TestRequest, timeoutMs: number): Promise<TestResult> {
    const ended = new AbortController();
    const run = this.#process.run(request, timeoutMs);
    const result = await Promise.race([run, this.#whenEndless(ended.signal)]);
    ended.abort();
    if (result === 'endless') {
      await this.#process.close();
      await this.#restartRedis();
      return { failure: 'a script does not end' };
    }
    await this.redis.flushall();
    return result;
  }

  async close(): Promise<void> {
    this.redis.disconnect();
    await this.#process.close();
    await this.#server.stop();
  }

  /** Resolves when Redis reports a script that does not end. */
  async #whenEndless(signal: AbortSignal): Promise<'endless'> {
    while (!signal.aborted) {
      await delay(PROBE_MS);
      const answer = await this.redis.ping().catch(String);
      if (/BUSY/.test(answer)) return 'endless';
    }
    return 'endless';
  }

  async #restartRedis(): Promise<void> {
    // Redis handles no SIGTERM while a script runs.
    this.#server.process.kill('SIGKILL');
    await this.#server.process.exited;
    this.#server = await startRedisServer({ port: this.redisPort });
    await this.#limitScripts();
  }

  async #limitScripts(): Promise<void> {
    await this.redis.config('SET', 'busy-reply-threshold', ENDLESS_SCRIPT_MS);
  }
}
