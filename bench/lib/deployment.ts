import { createSecretKey, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import jwt from 'jsonwebtoken';
import { freePorts } from '../../scripts/lib/ports.ts';
import { type Environment, type ManagedProcess, start } from '../../scripts/lib/processes.ts';
import { type RedisServer, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { authService, gateway, httpUrl, worker } from '../../scripts/lib/tollgate-processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';

export const KEY_PREFIX = 'bench';
export const JWT_AUDIENCE = 'tollgate';

export interface Started {
  readonly pid: number;
  readonly url: string;
  stop(): Promise<void>;
}

/** A private Redis and the processes of a deployment. `close` ends what it started. */
export class Deployment {
  readonly redis: RedisServer;
  readonly redisPid: number;
  readonly jwtSecret = randomBytes(32).toString('base64url');
  readonly #serviceSecret = randomBytes(32).toString('base64url');
  readonly #authUrl: string;
  readonly #children: ManagedProcess[] = [];
  readonly #root: string | undefined;

  private constructor(redis: RedisServer, authUrl: string, root: string | undefined) {
    this.redis = redis;
    this.redisPid = pidOf(redis.process);
    this.#authUrl = authUrl;
    this.#root = root;
  }

  /**
   * Starts Redis and the auth service.
   * @param env overrides the environment of all benchmarks for the auth service
   * @param root another checkout whose code is measured
   */
  static async start(env: Environment = {}, root?: string): Promise<Deployment> {
    const [port = 0] = await freePorts(1);
    const deployment = new Deployment(await startRedisServer(), httpUrl(port), root);
    // Not measured, and in another folder in early commits.
    const service = authService({ name: 'auth', port, env: deployment.#environment(env) });
    deployment.#children.push(await start(service));
    return deployment;
  }

  /** Starts Redis alone, for a server that verifies tokens by itself. */
  static async redisOnly(): Promise<Deployment> {
    return new Deployment(await startRedisServer(), 'http://no-auth-service.invalid', undefined);
  }

  get authPid(): number {
    const [service] = this.#children;
    if (!service) throw new Error('start the auth service first');
    return pidOf(service);
  }

  get issuer(): string {
    return this.#authUrl;
  }

  /** @param env overrides the environment of all benchmarks, e.g. with a `REDIS_URL` of a proxy */
  async gateway(env: Environment = {}): Promise<Started> {
    return this.#start(gateway, 'gateway', env);
  }

  async worker(env: Environment = {}): Promise<Started> {
    return this.#start(worker, 'worker', env);
  }

  /** @param claims override the default claims, e.g. a `sid` */
  token(userId: string, plan = 'developer', claims: Readonly<Record<string, unknown>> = {}): string {
    return this.#sign({ sub: userId, plan, permissions: [], ...claims });
  }

  serviceToken(scope: string): string {
    return this.#sign({ sub: 'service:bench', scope, token_use: 'service' });
  }

  async close(): Promise<void> {
    for (const child of this.#children.reverse()) if (child.running) await child.stop();
    await this.redis.stop();
  }

  async #start(kind: typeof gateway, name: string, env: Environment): Promise<Started> {
    const [port = 0] = await freePorts(1);
    const child = await start(kind({ name, port, env: this.#environment(env), root: this.#root }));
    this.#children.push(child);
    return { pid: pidOf(child), url: httpUrl(port), stop: async () => void (await child.stop()) };
  }

  #sign(claims: Readonly<Record<string, unknown>>): string {
    const key = createSecretKey(Buffer.from(this.jwtSecret));
    const named = { jti: randomBytes(12).toString('base64url'), ...claims };
    return jwt.sign(named, key, { issuer: this.#authUrl, audience: JWT_AUDIENCE, expiresIn: '2h' });
  }

  #environment(env: Environment): Environment {
    const inherited = Object.entries(process.env).filter(([name]) => !VARIABLE_NAMES.includes(name));
    return {
      ...Object.fromEntries(inherited),
      ENVIRONMENT: 'development',
      HOST: '127.0.0.1',
      LOG_LEVEL: 'warn',
      REDIS_URL: this.redis.url,
      REDIS_KEY_PREFIX: KEY_PREFIX,
      AUTH_SERVICE_URL: this.#authUrl,
      JWT_SECRET_KEY: this.jwtSecret,
      SERVICE_SECRET: this.#serviceSecret,
      DRAIN_SECONDS: '0',
      MESSAGE_RATE_PER_MINUTE: '1000000',
      // All clients share one address.
      PENDING_CONNECTIONS_PER_ADDRESS: '1000000',
      ...(this.#root ? { CATALOGUE_DIR: join(this.#root, 'config') } : {}),
      ...env,
    };
  }
}

/**
 * Returns the pid of the process itself: `setpriv`, which starts it, has replaced itself with it by the time it is
 * ready.
 */
function pidOf({ pid, name }: ManagedProcess): number {
  if (pid === undefined) throw new Error(`${name} has no process`);
  const program = readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  if (program === 'setpriv') throw new Error(`${name} is not the process that was started`);
  return pid;
}
