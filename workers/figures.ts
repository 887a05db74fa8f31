import { hostname } from 'node:os';
import { NodeRegistry, workerLeases } from '../src/cluster/node-registry.ts';
import { Sampler } from '../src/figures/sampler.ts';
import { SeriesStore } from '../src/figures/series-store.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Metrics } from '../src/lib/metrics.ts';
import { VERSION } from '../src/lib/version.ts';
import type { Redis } from '../src/redis/client.ts';
import type { Keys } from '../src/redis/keys.ts';

interface FiguresDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** Number of runs that this worker executes. */
  readonly executing: () => number;
  readonly onDrainRequested?: (() => void) | undefined;
}

/** Publishes the lease and the figures of a worker for the console. @returns a function that stops it */
export async function startFigures(deps: FiguresDeps, workerId: string): Promise<() => Promise<void>> {
  const sampler = new Sampler({ ...deps, store: new SeriesStore(deps) }, workerId);
  const registry = new NodeRegistry(deps, workerId, workerLeases(deps.keys));
  sampler.start();
  const about = { role: 'worker', version: VERSION, host: hostname(), connections: 0 } as const;
  await registry.start(() => ({ ...about, runs: deps.executing(), live: sampler.live }));
  return async () => {
    await Promise.all([sampler.stop(), registry.stop()]);
  };
}
