import { monitorEventLoopDelay } from 'node:perf_hooks';
import { masters, type Redis } from '../../redis/client.ts';
import type { ToolExecutor } from '../tool.ts';

/** Number of jobs per state in the queue of agent runs. */
export interface QueueDepth {
  readonly waiting: number;
  readonly active: number;
  readonly failed: number;
}

/** @param queue the queue of agent runs, or an object with the same counting method. A failed run leaves it. */
export async function depthOf(queue: { counts(): Promise<Omit<QueueDepth, 'failed'>> }): Promise<QueueDepth> {
  return { ...(await queue.counts()), failed: 0 };
}

/** A slower PING adds a warning. On the same machine, Redis responds in well under this. */
const SLOW_REDIS_MS = 50;
const LONG_QUEUE = 100;

/** Executor of `system_health`. Measures at the time of the call. The result contains no host, user or address. */
export function healthTools(deps: {
  redis: Redis;
  queueDepth: () => Promise<QueueDepth>;
}): Record<'system_health', ToolExecutor> {
  return {
    async system_health() {
      const loopDelay = monitorEventLoopDelay({ resolution: 5 });
      loopDelay.enable();
      const before = performance.now();
      await deps.redis.ping();
      const redisMs = performance.now() - before;
      const [usedMemory, queue] = await Promise.all([readUsedMemory(deps.redis), deps.queueDepth()]);
      loopDelay.disable();
      const warnings = [
        ...(redisMs > SLOW_REDIS_MS ? [`the store took ${redisMs.toFixed(0)} ms to answer`] : []),
        ...(queue.waiting > LONG_QUEUE ? [`${queue.waiting} runs wait for a worker`] : []),
      ];
      return {
        status: warnings.length === 0 ? 'healthy' : 'degraded',
        warnings,
        store: { ping_ms: Number(redisMs.toFixed(2)), used_memory_bytes: usedMemory },
        queue,
        process: {
          uptime_s: Math.round(process.uptime()),
          memory_bytes: process.memoryUsage.rss(),
          event_loop_delay_ms: Number((loopDelay.max / 1e6).toFixed(2)),
        },
      };
    },
  };
}

/** Sum of `used_memory` over all shards, in bytes. */
async function readUsedMemory(redis: Redis): Promise<number> {
  const infos = await Promise.all(masters(redis).map((master) => master.info('memory')));
  return infos.reduce((sum, info) => sum + Number(/^used_memory:(\d+)/m.exec(info)?.[1] ?? 0), 0);
}
