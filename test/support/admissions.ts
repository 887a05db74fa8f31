import { Redis } from 'ioredis';
import { connectRedis, disconnectRedis, masters } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { silentLogger } from './core.ts';
import { closeAfter } from './open-resources.ts';
import type { StackAddresses } from './stack.ts';

export interface Admitted {
  readonly connectionId: string;
  /** Its place in the order of admission. */
  readonly place: number;
  /** `performance.now()` when Redis told of it. */
  readonly at: number;
}

/**
 * Every admission as Redis carried it out, in Redis's order: the registry forgets those that were evicted, and no client
 * knows its place.
 */
export class Admissions {
  readonly #keys: Keys;
  readonly #byKey = new Map<string, Admitted[]>();

  private constructor(keys: Keys) {
    this.#keys = keys;
  }

  /** Watches a stack until the file ends. */
  static async watch(of: StackAddresses): Promise<Admissions> {
    const admissions = new Admissions(new Keys(of.keyPrefix));
    const redis = await connectRedis(of.redisUrl, 'commands', silentLogger);
    closeAfter('file', () => disconnectRedis(redis));
    for (const { options } of masters(redis)) {
      const monitor = await new Redis({ host: options.host, port: options.port, lazyConnect: true }).monitor();
      closeAfter('file', () => monitor.disconnect());
      monitor.on('monitor', (_time: string, [command, ...args]: string[], source: string) => {
        if (source === 'lua' && command?.toUpperCase() === 'HSET') admissions.#seen(args);
      });
    }
    return admissions;
  }

  /** Of one user, in the order of admission. */
  of(userId: string): readonly Admitted[] {
    return this.#byKey.get(this.#keys.user(userId).connections) ?? [];
  }

  /** What the script writes: `HSET <connections> <id> "<place> <details>" # <last place>`. */
  #seen([key = '', connectionId = '', value = '', mark]: string[]): void {
    if (mark !== '#') return;
    const admitted = { connectionId, place: Number.parseInt(value, 10), at: performance.now() };
    const known = this.#byKey.get(key);
    if (known) known.push(admitted);
    else this.#byKey.set(key, [admitted]);
  }
}
