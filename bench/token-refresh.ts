import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { RefreshTokens } from '../auth-service/refresh-tokens.ts';
import { Sessions } from '../auth-service/sessions.ts';
import { TokenIssuer } from '../auth-service/token-issuer.ts';
import { Revocations } from '../src/accounts/revocations.ts';
import { systemClock } from '../src/lib/clock.ts';
import { createLogger } from '../src/lib/logger.ts';
import { connectRedis, disconnectRedis, type Redis } from '../src/redis/client.ts';
import { Keys } from '../src/redis/keys.ts';
import { startCpuClock } from './lib/cpu.ts';
import { Deployment, JWT_AUDIENCE, KEY_PREFIX } from './lib/deployment.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { percentile } from './lib/statistics.ts';

const TOKEN_SECONDS = 60;
const GATEWAYS = 2;
/** Spreads the logins, so that the tokens do not all expire in the same second. */
const CONNECTS_PER_SECOND = 250;

interface Plan {
  readonly sessions: number;
  readonly seconds: number;
}

/** Observations of the clients. */
class Observed {
  refreshes = 0;
  degraded = 0;
  closed = 0;
  /** Remaining life of the old token when the new one arrived, seconds. */
  readonly leads: number[] = [];
}

/** Creates one user per session in the auth service. Each logs in on request, so that its token is fresh. */
async function makeSessions(redis: Redis, deployment: Deployment, count: number) {
  const keys = new Keys(KEY_PREFIX);
  const secrets = [deployment.jwtSecret] as const;
  const deps = { redis, keys, clock: systemClock, refreshTokens: new RefreshTokens(secrets) };
  const revocations = new Revocations({ redis, keys });
  const sessions = new Sessions({ ...deps, revocations }, { tokenTailMs: TOKEN_SECONDS * 1000 });
  const signing = { issuer: deployment.issuer, audience: JWT_AUDIENCE, secrets, accessTokenSeconds: TOKEN_SECONDS };
  const tokens = new TokenIssuer({ clock: systemClock }, { ...signing, acceptedTypes: ['at+jwt'] });
  const users = Array.from({ length: count }, (_, at) => ({ userId: `bench_${at}`, email: `bench_${at}@demo.local` }));
  await Promise.all(
    users.map(({ userId, email }) => {
      return redis.hset(keys.auth(`user:${email}`), { id: userId, plan: 'pro', roles: '', password_hash: 'none' });
    }),
  );
  const login = async ({ userId, email }: (typeof users)[number]) => {
    const { session } = await sessions.start({ userId, email, client: 'public:bench', generation: 0 });
    const subject = { sub: userId, sid: session.id, email, plan: 'pro', permissions: [], roles: [], feature_flags: {} };
    return tokens.signAccess(subject, session.expiresAt).token;
  };
  return users.map((user) => () => login(user));
}

function connect(url: string, token: string, observed: Observed): Promise<WebSocket> {
  const headers = { authorization: `Bearer ${token}` };
  const socket = new WebSocket(`${url.replace('http', 'ws')}/ws/secure`, { headers, perMessageDeflate: false });
  let expiresAt = 0;
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', (code, reason) => {
      reject(new Error(`closed with ${code} ${reason}`));
      observed.closed += 1;
    });
    socket.on('message', (data) => {
      const { type, payload } = JSON.parse(String(data)) as { type: string; payload: Record<string, string> };
      const ends = Date.parse(payload.token_expires_at ?? '');
      if (type === 'token_degraded') observed.degraded += 1;
      if (type === 'token_refreshed') {
        observed.refreshes += 1;
        observed.leads.push((expiresAt - Date.now()) / 1000);
      }
      if (!Number.isNaN(ends)) expiresAt = ends;
      if (type === 'connection_established') resolve(socket);
    });
  });
}

async function counted(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(name));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

/** Keeps sessions with one-minute tokens connected for several minutes. */
export async function tokenRefresh({ quick }: BenchOptions): Promise<Report> {
  const plan: Plan = quick ? { sessions: 100, seconds: 60 } : { sessions: 10_000, seconds: 300 };
  const deployment = await Deployment.start({ ACCESS_TOKEN_SECONDS: String(TOKEN_SECONDS) });
  const redis = await connectRedis(deployment.redis.url, 'commands', createLogger('bench', 'silent'));
  const sockets: WebSocket[] = [];
  const observed = new Observed();
  try {
    const gateways = await Promise.all(Array.from({ length: GATEWAYS }, () => deployment.gateway()));
    const worker = await deployment.worker();
    const logins = await makeSessions(redis, deployment, plan.sessions);
    progress(`connecting ${plan.sessions} sessions`);
    for (const [at, login] of logins.entries()) {
      const gateway = gateways[at % GATEWAYS];
      if (gateway) sockets.push(await connect(gateway.url, await login(), observed));
      if (at % CONNECTS_PER_SECOND === 0) await delay(200);
    }
    progress(`keeping them connected for ${plan.seconds} s`);
    const before = {
      refreshes: observed.refreshes,
      asked: await counted(worker.url, 'tollgate_token_refreshes_total'),
    };
    const processes = { worker: worker.pid, 'auth service': deployment.authPid, Redis: deployment.redisPid };
    const named = { ...processes, ...Object.fromEntries(gateways.map(({ pid }, at) => [`gateway ${at + 1}`, pid])) };
    const cpu = startCpuClock(Object.values(named));
    const startedAt = performance.now();
    await delay(plan.seconds * 1000);
    const seconds = (performance.now() - startedAt) / 1000;
    const shares = cpu().map((micros) => micros / 1e6 / seconds);
    const asked = (await counted(worker.url, 'tollgate_token_refreshes_total')) - before.asked;
    const refreshes = observed.refreshes - before.refreshes;
    const { degraded, closed, leads } = observed;
    const cores = Object.fromEntries(Object.keys(named).map((name, at) => [name, shares[at]]));
    const data = { ...plan, refreshes, asked, degraded, closed, cores };
    const rows = [
      ['refreshes per second, requests to the auth service', (asked / seconds).toFixed(1)],
      ['refreshes per second, received by clients', (refreshes / seconds).toFixed(1)],
      [
        'remaining life of the old token, p1 / p50 / p99, s',
        [0.01, 0.5, 0.99].map((p) => percentile(leads, p).toFixed(1)).join(' / '),
      ],
      ['connections degraded', String(degraded)],
      ['connections closed', String(closed)],
      ...Object.keys(named).map((name, at) => [`CPU of ${name}, cores`, (shares[at] ?? 0).toFixed(3)]),
    ];
    return {
      name: 'Token refresh',
      about: `${plan.sessions} connections of as many sessions on ${GATEWAYS} gateways, tokens of ${TOKEN_SECONDS} s, one worker, ${plan.seconds} s.`,
      tables: [{ title: 'Cost', header: ['', ''], rows }],
      data,
    };
  } finally {
    for (const socket of sockets) socket.terminate();
    await disconnectRedis(redis);
    await deployment.close();
  }
}

if (import.meta.main) await runAsProgram([tokenRefresh]);
