import { randomBytes } from 'node:crypto';
import { type Logger, pino } from 'pino';
import { PASSWORD_COST } from '../../auth-service/passwords.ts';
import { startAuthService } from '../../auth-service/server.ts';
import { loadConfig } from '../../src/config.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';

const logger = pino({ level: 'silent' });

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into JSON whose form they are about to assert
  readonly body: any;
}

export interface Call {
  readonly method?: string;
  /** Sent as a form. */
  readonly form?: Record<string, string> | [string, string][];
  /** Sent as JSON. */
  readonly json?: unknown;
  readonly headers?: Record<string, string>;
}

export interface Fixture {
  /** URL of the service, for requests whose redirects are not followed. */
  readonly url: string;
  readonly clock: ManualClock;
  /** A connection of the test's own. */
  readonly redis: Redis;
  readonly redisUrl: string;
  readonly logger: Logger;
  readonly prefix: string;
  readonly secrets: { readonly jwt: string; readonly service: string; readonly password: string };
  call(path: string, call?: Call): Promise<Answer>;
  /** `POST /oauth/token` with a form body. */
  token(form: Record<string, string>, headers?: Record<string, string>): Promise<Answer>;
  /** Resolves with the response to a password login. */
  login(user?: string, form?: Record<string, string>): Promise<Answer>;
  serviceToken(scope: string): Promise<string>;
  /** Called automatically at the end of the file. */
  close(): Promise<void>;
}

/** A hundred logins take 16 s at the production cost. */
const CHEAP = { ...PASSWORD_COST, logN: 8 };

export const randomSecret = () => randomBytes(32).toString('hex');

/**
 * Starts the service as in production, on its own port and key prefix, with a manual clock.
 * @param env overrides the environment; `REDIS_KEY_PREFIX` and `JWT_SECRET_KEY` of another fixture make it a second
 * node
 */
export async function startFixture(
  env: Record<string, string> = {},
  { clock = new ManualClock(), passwordCost = CHEAP } = {},
): Promise<Fixture> {
  const redisUrl = process.env.TEST_REDIS_URL ?? 'redis://127.0.0.1:6379';
  const config = loadConfig({
    ENVIRONMENT: 'test',
    HOST: '127.0.0.1',
    AUTH_PORT: '0',
    AUTH_SERVICE_URL: 'http://auth.test',
    REDIS_URL: redisUrl,
    REDIS_KEY_PREFIX: `auth-${randomBytes(6).toString('hex')}`,
    JWT_SECRET_KEY: randomSecret(),
    SERVICE_SECRET: randomSecret(),
    DEMO_PASSWORD: randomSecret(),
    CORS_ORIGINS: 'http://localhost:8000',
    ...env,
  });
  const redis = await connectRedis(redisUrl, 'commands', logger);
  closeAfter('file', () => disconnectRedis(redis));
  const service = await startAuthService(config, { logger, clock, passwordCost });
  closeAfter('file', () => service.close());
  const secrets = {
    jwt: config.JWT_SECRET_KEY ?? '',
    service: config.SERVICE_SECRET,
    password: config.DEMO_PASSWORD ?? '',
  };

  const call = async (path: string, { method, form, json, headers }: Call = {}): Promise<Answer> => {
    const body = form ? new URLSearchParams(form) : json === undefined ? undefined : JSON.stringify(json);
    const response = await fetch(`http://127.0.0.1:${service.port}${path}`, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: { ...(json === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      body,
    });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      text,
      body: text === '' ? undefined : JSON.parse(text),
    };
  };
  const token: Fixture['token'] = (form, headers) => call('/oauth/token', { form, headers });

  return {
    url: `http://127.0.0.1:${service.port}`,
    clock,
    redis,
    redisUrl,
    logger,
    prefix: config.REDIS_KEY_PREFIX,
    secrets,
    call,
    token,
    login: (user = 'free', form = {}) => {
      const credentials = { username: `${user}@demo.local`, password: secrets.password };
      return token({ grant_type: 'password', ...credentials, ...form });
    },
    serviceToken: async (scope) => {
      const client = { client_id: 'test-service', client_secret: secrets.service };
      return (await token({ grant_type: 'client_credentials', ...client, scope })).body.access_token;
    },
    close: () => service.close(),
  };
}

export const basic = (id: string, secret: string) => ({
  authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
});
export const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

// biome-ignore lint/suspicious/noExplicitAny: as `Answer.body`
export function claimsOf(token: string): any {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'));
}
