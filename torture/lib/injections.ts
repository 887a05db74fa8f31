import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { RedisProcess } from '../../test/support/redis-process.ts';
import type { StackProcess } from '../../test/support/stack-processes.ts';
import { type Deployment, startAgain } from './deployment.ts';
import type { HttpFault } from './http-link.ts';
import type { LinkFault } from './links.ts';
import { SentinelRedis, SingleRedis } from './redis-hosts.ts';

const run = promisify(execFile);

/** Ends a fault; resolves when what it stopped serves again. */
export type Heal = () => Promise<unknown>;
/** Begins a fault of `target` that lasts for `forMs`. */
export type Inject = (deployment: Deployment, target: string, forMs: number) => Promise<Heal>;

const NOTHING: Heal = async () => undefined;

function processOf({ stack }: Deployment, name: string): StackProcess & { readonly pid: number } {
  const found = stack.all.find((process) => process.name === name);
  if (found?.pid === undefined) throw new Error(`there is no running process ${name}`);
  return found as StackProcess & { readonly pid: number };
}

export const killed: Inject = async (deployment, target) => {
  const process = processOf(deployment, target);
  await process.kill('SIGKILL');
  return () => startAgain(process);
};

export const paused: Inject = async (deployment, target) => {
  const { pid, running } = processOf(deployment, target);
  if (!running) return NOTHING;
  process.kill(pid, 'SIGSTOP');
  return async () => process.kill(pid, 'SIGCONT');
};

export const blocked: Inject = async (deployment, target, forMs) => {
  const { pid } = processOf(deployment, target);
  // Resolves when the event loop is free again, or when the process has ended.
  const blocking = deployment.members.inspectors.block(target, pid, forMs).catch(() => undefined);
  return () => blocking;
};

export const withoutDescriptors: Inject = async (deployment, target) => {
  const { pid, running } = processOf(deployment, target);
  // It has ended by itself, which the round reports.
  if (!running) return NOTHING;
  const { stdout } = await run('prlimit', ['--pid', String(pid), '--nofile', '--output=SOFT', '--noheadings']);
  const open = new Set((await readdir(`/proc/${pid}/fd`)).map(Number));
  // The next descriptor is the lowest free number.
  let lowest = 0;
  while (open.has(lowest)) lowest += 1;
  const limit = (soft: number) => run('prlimit', ['--pid', String(pid), `--nofile=${soft}:`]);
  await limit(lowest);
  return () => limit(Number(stdout.trim())).catch(() => undefined);
};

const STEP_SECONDS = 300;

/** Sets the clock of one process forward, back, or alternately both ways. */
export const clockSet: Inject = async (deployment, target, forMs) => {
  const clock = deployment.members.clocks.get(target);
  if (!clock) throw new Error(`the clock of ${target} cannot be set`);
  const steps = [[STEP_SECONDS], [-STEP_SECONDS], [STEP_SECONDS, -STEP_SECONDS, 0]][forMs % 3] ?? [];
  let at = 0;
  const step = () => {
    clock.set(steps[at % steps.length] ?? 0);
    at += 1;
  };
  step();
  const timer = setInterval(step, 1_500);
  return async () => {
    clearInterval(timer);
    clock.set(0);
  };
};

export const namesFail: Inject = async ({ members: { names, links } }, target) => {
  const heal = names.fail(target);
  // A connection that is open needs no name.
  links.get(target)?.break({ kind: 'cut' })();
  return async () => heal();
};

/** A fault of the link between one process and Redis. */
export function linkOf(fault: (forMs: number) => LinkFault): Inject {
  return async ({ members: { links } }, target, forMs) => {
    const heal = links.get(target)?.break(fault(forMs));
    return async () => heal?.();
  };
}

export const linkAbandoned: Inject = async ({ members: { links } }, target) => {
  links.get(target)?.abandon();
  return NOTHING;
};

/** A fault of all links to Redis at once. */
export function allLinks(fault: (forMs: number) => LinkFault): Inject {
  return async ({ members: { links } }, _target, forMs) => {
    const heals = [...links.values()].map((link) => link.break(fault(forMs)));
    return async () => {
      for (const heal of heals) heal();
    };
  };
}

function serverOf({ members: { redis } }: Deployment, target: string): RedisProcess {
  const server =
    redis.servers.get(target) ?? (redis instanceof SentinelRedis ? redis.sentinels.get(target) : undefined);
  if (!server) throw new Error(`there is no Redis server ${target}`);
  return server;
}

export const redisKilled: Inject = async (deployment, target) => {
  const server = serverOf(deployment, target);
  await server.kill('SIGKILL');
  return async () => {
    await server.restart();
    await deployment.members.redis.healthy();
  };
};

export const redisPaused: Inject = async (deployment, target) => {
  const server = serverOf(deployment, target);
  await server.kill('SIGSTOP');
  return async () => {
    await server.kill('SIGCONT');
    await deployment.members.redis.healthy();
  };
};

export const redisClientsPaused: Inject = async (deployment, target, forMs) => {
  await serverOf(deployment, target).ask((redis) => redis.call('CLIENT', 'PAUSE', String(forMs), 'ALL'));
  return () => deployment.members.redis.healthy();
};

/** Memory that Redis may still use. */
const SPARE_BYTES = 64 << 10;

export const memoryFull: Inject = async (deployment, target) => {
  const server = serverOf(deployment, target);
  const set = (bytes: number) => server.ask((redis) => redis.config('SET', 'maxmemory', String(bytes)));
  const info = await server.ask((redis) => redis.info('memory'));
  const used = Number(/^used_memory:(\d+)/m.exec(info)?.[1]);
  await set(used + SPARE_BYTES);
  return () => set(0);
};

function single({ members: { redis } }: Deployment): SingleRedis {
  if (redis instanceof SingleRedis) return redis;
  throw new Error('this fault needs a single Redis');
}

export const diskFull: Inject = async (deployment) => single(deployment).fillDisk();

export const restartedEmpty: Inject = async (deployment) => {
  const redis = single(deployment);
  await redis.server.kill('SIGKILL');
  return async () => {
    await redis.clear();
    await redis.server.restart();
    // The reference auth service has its accounts in Redis, and stores those of this round when it starts.
    await deployment.stack.auth.restart();
  };
};

export function authAnswers(fault: HttpFault): Inject {
  return async ({ members: { authLink } }) => {
    authLink.fault = fault;
    return async () => {
      authLink.fault = 'none';
    };
  };
}

/** The issuer signs with a new key, which cannot be fetched before the fault ends. */
export const keysRotated: Inject = async ({ members: { keyServer } }) => {
  keyServer.isDown = true;
  keyServer.rotate();
  return async () => {
    keyServer.isDown = false;
  };
};

type HelperName = 'toolServer' | 'agent' | 'balancer';

export function helperKilled(name: HelperName): Inject {
  return async ({ members }) => {
    await members[name]?.kill();
    return async () => members[name]?.restart();
  };
}

export function helperPaused(name: HelperName): Inject {
  return async ({ members }) => {
    members[name]?.signal('SIGSTOP');
    return async () => members[name]?.signal('SIGCONT');
  };
}

export const balancerReloaded: Inject = async ({ members }) => {
  await members.balancer?.reload();
  return NOTHING;
};
