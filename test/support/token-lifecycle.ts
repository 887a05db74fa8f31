import { randomBytes } from 'node:crypto';
import { PASSWORD_COST } from '../../auth-service/passwords.ts';
import { startAuthService } from '../../auth-service/server.ts';
import { freePorts } from '../../scripts/lib/ports.ts';
import { Revocations } from '../../src/accounts/revocations.ts';
import { AuthServiceClient } from '../../src/auth/client/auth-service-client.ts';
import { TokenSeal } from '../../src/auth/token-refresh/token-seal.ts';
import { TokenSessions, tokenLifecycleTimes } from '../../src/auth/token-refresh/token-sessions.ts';
import { type RunningGateway, startGateway } from '../../src/compose/gateway.ts';
import { type Config, loadConfig } from '../../src/config.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys, PARTITIONS } from '../../src/redis/keys.ts';
import { refreshTokens } from '../../workers/refresh-tokens.ts';
import { openClient, type TestClient, type TransportName } from './clients.ts';
import { silentLogger } from './core.ts';
import { ManualClock } from './manual-clock.ts';
import { closeAfter } from './open-resources.ts';
import { testRedisUrl } from './stack.ts';

/** Step of `advance`: the interval at which a worker looks for due tokens. */
const STEP_MS = 1_000;
/** While work waits for the manual clock, it advances by this much every `PAUSE_REAL_MS` of real time. */
const PAUSE_MS = 20;
const PAUSE_REAL_MS = 10;
const ALL_PARTITIONS = Array.from({ length: PARTITIONS }, (_, partition) => partition);
/** A login takes 0.3 s of CPU at the production cost. */
const CHEAP = { ...PASSWORD_COST, logN: 8 };

export interface Login {
  readonly access_token: string;
  readonly refresh_token: string;
}

/**
 * A deployment on a manual clock: gateways, the auth service and a worker's refresh job, all real and in this process.
 */
export class SecondDeployment {
  readonly clock: ManualClock;
  readonly config: Config;
  readonly redis: Redis;
  readonly keys: Keys;
  readonly metrics = new Metrics();
  readonly tokenSessions: TokenSessions;
  readonly authService: AuthServiceClient;
  readonly gateways: RunningGateway[] = [];
  #auth: { close(): Promise<void> } | undefined;

  private constructor(config: Config, redis: Redis, clock: ManualClock) {
    this.config = config;
    this.redis = redis;
    this.clock = clock;
    this.keys = new Keys(config.REDIS_KEY_PREFIX);
    const seal = new TokenSeal(config.SERVICE_SECRET);
    this.tokenSessions = new TokenSessions({ redis, keys: this.keys, clock, seal }, tokenLifecycleTimes(config));
    this.authService = new AuthServiceClient(
      { clock, metrics: this.metrics, logger: silentLogger, tracing: NO_TRACING },
      { url: config.AUTH_SERVICE_URL, issuer: config.JWT_ISSUER, serviceSecret: config.SERVICE_SECRET },
    );
  }

  static async start({ gateways = 1, env = {} }: { gateways?: number; env?: Record<string, string> } = {}) {
    const [authPort = 0] = await freePorts(1);
    const config = loadConfig({
      ENVIRONMENT: 'test',
      HOST: '127.0.0.1',
      PORT: '0',
      AUTH_PORT: String(authPort),
      AUTH_SERVICE_URL: `http://127.0.0.1:${authPort}`,
      REDIS_URL: testRedisUrl(),
      REDIS_KEY_PREFIX: `m${randomBytes(6).toString('hex')}`,
      JWT_SECRET_KEY: randomBytes(32).toString('hex'),
      SERVICE_SECRET: randomBytes(32).toString('hex'),
      DEMO_PASSWORD: randomBytes(12).toString('hex'),
      DRAIN_SECONDS: '0',
      // A client answers pings in real time.
      CONNECTION_TIMEOUT_SECONDS: '86400',
      LOG_LEVEL: 'silent',
      ...env,
    });
    const redis = await connectRedis(config.REDIS_URL, 'commands', silentLogger);
    closeAfter('file', () => disconnectRedis(redis));
    const deployment = new SecondDeployment(config, redis, new ManualClock());
    closeAfter('file', () => deployment.authService.close());
    await deployment.startAuthService();
    closeAfter('file', () => deployment.stopAuthService());
    for (let i = 0; i < gateways; i++) {
      const gateway = await startGateway(config, { logger: silentLogger, clock: deployment.clock });
      closeAfter('file', () => deployment.#close(gateway));
      deployment.gateways.push(gateway);
    }
    return deployment;
  }

  async startAuthService(): Promise<void> {
    const options = { logger: silentLogger, clock: this.clock, passwordCost: CHEAP };
    this.#auth = await startAuthService(this.config, options);
  }

  async stopAuthService(): Promise<void> {
    await this.#auth?.close();
    this.#auth = undefined;
  }

  login(plan = 'pro'): Promise<Login> {
    const grant = { grant_type: 'password', username: `${plan}@demo.local`, password: this.config.DEMO_PASSWORD ?? '' };
    return this.post('/oauth/token', grant) as Promise<Login>;
  }

  async post(path: string, form: Record<string, string>): Promise<object> {
    const response = await fetch(`${this.config.AUTH_SERVICE_URL}${path}`, {
      method: 'POST',
      body: new URLSearchParams(form),
    });
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
    const text = await response.text();
    return text === '' ? {} : (JSON.parse(text) as object);
  }

  async connect(token: string, { node = 0, transport = 'ws' as TransportName } = {}): Promise<TestClient> {
    const client = await openClient({ transport, url: `http://127.0.0.1:${this.gateways[node]?.port}`, token });
    await client.welcome();
    return client;
  }

  /** Returns a gateway's metrics by name and labels, as printed. */
  async metricsOf(node: number): Promise<ReadonlyMap<string, number>> {
    const response = await fetch(`http://127.0.0.1:${this.gateways[node]?.port}/metrics`);
    const lines = (await response.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]));
  }

  /** Runs the due jobs of a worker. */
  refresh(): Promise<number> {
    const { tokenSessions, authService, clock, metrics } = this;
    const revocations = new Revocations({ redis: this.redis, keys: this.keys });
    const refreshers = { refresh: (token: string) => authService.exchange(token) };
    const deps = { tokenSessions, refreshers, revocations, clock, metrics, logger: silentLogger, tracing: NO_TRACING };
    return refreshTokens(ALL_PARTITIONS, deps);
  }

  /** Advances the time second by second, with the worker's refresh job at each; ends early when `done` returns true. */
  async advance(byMs: number, done: () => boolean = () => false): Promise<void> {
    const end = this.clock.now() + byMs;
    while (this.clock.now() < end && !done()) {
      this.clock.advance(Math.min(STEP_MS, end - this.clock.now()));
      await this.#letting(this.refresh());
    }
  }

  /** Work may itself wait for the manual clock, e.g. for a retry delay. */
  async #letting<T>(work: Promise<T>): Promise<T> {
    const moving = setInterval(() => this.clock.advance(PAUSE_MS), PAUSE_REAL_MS);
    return work.finally(() => clearInterval(moving));
  }

  /** Draining spreads its closes over the manual clock. */
  async #close(gateway: RunningGateway): Promise<void> {
    await this.#letting(gateway.close());
  }
}
