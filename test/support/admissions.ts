import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { connectRedis, disconnectRedis, masters } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { silentLogger } from './core.ts';
import { closeAfter } from './open-resources.ts';
import type { StackAddresses } from './stack.ts';

export interface Admitted {
  readonly connectionId: string;
  /** The admission order. */
  readonly order: number;
  /** `performance.now()` when the MONITOR line arrived. */
  readonly at: number;
}

/**
 * All admissions in the order in which Redis executed them. The registry deletes evicted connections, and clients do
 * not receive their admission order, so this reads a MONITOR.
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
      await monitored(Number(options.port), (line) => {
        const [command, ...args] = /^\+\d+\.\d+ \[\d+ lua\] /.test(line) ? argumentsOf(line) : [];
        if (command?.toUpperCase() === 'HSET') admissions.#seen(args);
      });
    }
    return admissions;
  }

  /** The admissions of one user, in order. */
  of(userId: string): readonly Admitted[] {
    return this.#byKey.get(this.#keys.user(userId).connections) ?? [];
  }

  /** Parses what the script writes: `HSET <connections> <id> "<order> <details>" # <last order>`. */
  #seen([key = '', connectionId = '', value = '', mark]: string[]): void {
    if (mark !== '#') return;
    const admitted = { connectionId, order: Number.parseInt(value, 10), at: performance.now() };
    const existing = this.#byKey.get(key);
    if (existing) existing.push(admitted);
    else this.#byKey.set(key, [admitted]);
  }
}

/**
 * Passes on each line of a MONITOR until the file ends. It uses its own socket: on a busy Redis the first lines arrive
 * with the `OK`, and ioredis takes them for replies without a request.
 */
async function monitored(port: number, received: (line: string) => void): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  closeAfter('file', () => socket.destroy());
  // A lost connection shows as missing admissions.
  socket.on('error', () => undefined);
  const lines = createInterface({ input: socket });
  lines.on('line', received);
  const began = once(lines, 'line');
  socket.write('MONITOR\r\n');
  const [answer] = await began;
  if (answer !== '+OK') throw new Error(`MONITOR was answered with ${answer}`);
}

/** Parses arguments as Redis prints them: quoted, with quotes and backslashes escaped. */
function argumentsOf(line: string): string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, text = '']) => text.replaceAll(/\\(["\\])/g, '$1'));
}
