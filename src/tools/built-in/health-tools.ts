import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Queue } from 'bullmq';
import { masters, type Redis } from '../../redis/client.ts';
import type { ToolExecutor } from '../tool.ts';

/** What the queue of agent runs can tell of itself. */
export interface QueueDepth {
  readonly waiting: number;
  readonly active: number;
  readonly failed: number;
}

/** @param queue of agent runs, or whatever counts as BullMQ does */
export async function depthOf(queue: Pick<Queue, 'getJobCounts'>): Promise<QueueDepth> {
  const { waiting = 0, active = 0, failed = 0 } = await queue.getJobCounts('waiting', 'active', 'failed');
  return { waiting, active, failed };
}

/** Redis answers a PING on the same machine in well under this; more is worth a sentence. */
const SLOW_REDIS_MS = 50;
const LONG_QUEUE = 100;

/** `system_health`: measured when it is called. Names no host, no user and no address. */
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

/** Of all shards together. */
async function readUsedMemory(redis: Redis): Promise<number> {
  const infos = await Promise.all(masters(redis).map((master) => master.info('memory')));
  return infos.reduce((sum, info) => sum + Number(/^used_memory:(\d+)/m.exec(info)?.[1] ?? 0), 0);
}
