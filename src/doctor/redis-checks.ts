import type { Redis as RedisServer } from 'ioredis';
import type { Config } from '../config.ts';
import type { Logger } from '../lib/logger.ts';
import { connectRedis, disconnectRedis, masters } from '../redis/client.ts';
import { type Finding, findings, reasonOf } from './findings.ts';

const { ok, problem } = findings('redis');

const PINGS = 20;
/** A message costs one round trip, and a run several per step. */
const SLOW_MS = 10;
/** Token times are compared with the clock of the process, leases with the clock of Redis. */
const CLOCK_MS = { warning: 500, failed: 5_000 };

/** What to do about the errors with which a process refuses to start. */
const ADVICE: readonly (readonly [RegExp, string])[] = [
  [/maxmemory-policy/, 'Set maxmemory-policy to noeviction: an evicted key is a lost event, lease or usage record.'],
  [/version/, 'Use Redis 7.0 or newer.'],
  [/replica/, 'Let REDIS_URL name the master, or the Sentinels: redis+sentinel://host,host,host/master.'],
  [/redis\+cluster/, 'Write REDIS_URL as redis+cluster://host:port,host:port.'],
  [/NOAUTH|WRONGPASS|NOPERM/, 'Check user and password in REDIS_URL, and the permissions in docs/operations.md.'],
  [/certificate|TLS|SSL/i, 'Check the REDIS_TLS_ variables, and that the port of REDIS_URL uses TLS.'],
];
const UNREACHABLE = 'Check that Redis runs, and that this host can reach the host and port of REDIS_URL.';

/** Connects as a gateway does, then checks persistence, clock and latency of each master. */
export async function checkRedis(config: Config, logger: Logger): Promise<Finding[]> {
  try {
    const redis = await connectRedis(config, 'commands', logger);
    try {
      const found = await Promise.all(masters(redis).map((master) => checkMaster(master)));
      return [ok('connection', 'version and eviction policy are suitable'), ...found.flat()];
    } finally {
      await disconnectRedis(redis);
    }
  } catch (error) {
    const reason = reasonOf(error);
    const advice = ADVICE.find(([pattern]) => pattern.test(reason))?.[1] ?? UNREACHABLE;
    return [problem('failed', 'connection', reason, advice)];
  }
}

async function checkMaster(master: RedisServer): Promise<Finding[]> {
  const lines = (await master.info()).split('\r\n').map((line) => line.split(':'));
  const value = (name: string) => lines.find(([key]) => key === name)?.[1];
  const times: number[] = [];
  let difference = 0;
  for (let at = 0; at < PINGS; at++) {
    const [sentAt, started] = [Date.now(), performance.now()];
    const [seconds, microseconds] = await master.time();
    times.push(performance.now() - started);
    difference = Number(seconds) * 1000 + Number(microseconds) / 1000 - (sentAt + (times.at(-1) ?? 0) / 2);
  }
  return [
    ok('version', `Redis ${value('redis_version')}`),
    persistence(value('aof_enabled'), value('aof_last_write_status'), value('rdb_last_bgsave_status')),
    clock(difference),
    latency(times.toSorted((a, b) => a - b)[PINGS / 2] ?? 0),
  ];
}

function persistence(aof: string | undefined, aofWrites: string | undefined, snapshots: string | undefined): Finding {
  if (aofWrites === 'err' || snapshots === 'err') {
    const advice = 'Check disk space and the log of Redis: it cannot write its files.';
    return problem('failed', 'persistence', 'the last write to disk failed', advice);
  }
  if (aof === '1') return ok('persistence', 'append-only file');
  const advice = 'Set appendonly to yes. Without it, a restart of Redis loses what came after the last snapshot.';
  return problem('warning', 'persistence', 'no append-only file', advice);
}

function clock(differenceMs: number): Finding {
  const apart = Math.abs(differenceMs);
  const detail = `the clocks differ by ${Math.round(apart)} ms`;
  if (apart < CLOCK_MS.warning) return ok('clock', detail);
  const advice = 'Synchronise the clocks (NTP) of this host, of Redis and of the identity provider.';
  return problem(apart < CLOCK_MS.failed ? 'warning' : 'failed', 'clock', detail, advice);
}

function latency(medianMs: number): Finding {
  const detail = `a round trip takes ${medianMs.toFixed(1)} ms (median of ${PINGS})`;
  if (medianMs < SLOW_MS) return ok('latency', detail);
  return problem('warning', 'latency', detail, 'Run Redis in the same zone as the nodes: each message waits for it.');
}
