import { Redis } from 'ioredis';
import { type RedisServer, type RedisServerOptions, startRedisServer } from '../../scripts/lib/redis-server.ts';
import { closeAfter } from './open-resources.ts';
import { areInStep } from './replicas.ts';
import { TcpProxy } from './tcp-proxy.ts';
import { until } from './until.ts';

/** A master and its replica behind one address that leads to the current master. */
export interface ReplicatedRedis {
  readonly url: string;
  readonly replicaUrl: string;
  /** Pauses the replication: only the master has later writes. */
  readonly lag: () => void;
  readonly catchUp: () => Promise<void>;
  /** Kills the master with SIGKILL, promotes the replica, and redirects clients to it. Can be called once. */
  readonly failOver: (onKilled?: () => void) => Promise<void>;
}

export async function replicatedRedis(options: RedisServerOptions = {}): Promise<ReplicatedRedis> {
  const [master, replica] = await Promise.all([started(options), started({})]);
  const [onMaster, onReplica] = [admin(master), admin(replica)];
  const replication = await TcpProxy.start(master.url);
  const clients = await TcpProxy.start(master.url);
  await onMaster.config('SET', 'repl-diskless-sync-delay', '0');
  await onReplica.replicaof('127.0.0.1', Number(new URL(replication.url).port));
  const inStep = () => areInStep(onMaster, 1);
  await until(inStep, { timeoutMs: 20_000, label: 'the replica' });
  return {
    url: clients.url,
    replicaUrl: replica.url,
    lag: () => replication.hold(),
    catchUp: async () => {
      replication.release();
      await onMaster.ping();
      await until(inStep, { timeoutMs: 10_000, label: 'the replica' });
    },
    failOver: async (onKilled) => {
      onMaster.disconnect();
      master.process.kill('SIGKILL');
      await master.process.exited;
      onKilled?.();
      replication.cut();
      await onReplica.replicaof('NO', 'ONE');
      clients.redirect(replica.url);
    },
  };
}

async function started(options: RedisServerOptions): Promise<RedisServer> {
  const server = await startRedisServer(options);
  closeAfter('test', () => server.stop());
  return server;
}

/** Returns a connection that stays when the server becomes a replica, which those of Tollgate leave. */
function admin(server: RedisServer): Redis {
  const redis = new Redis(server.url);
  redis.on('error', () => {});
  closeAfter('test', () => redis.disconnect());
  return redis;
}
