import { readFileSync } from 'node:fs';
import { HAPROXY_CONFIG } from '../../scripts/lib/haproxy.ts';

const SECONDS = { s: 1, m: 60, h: 3_600 } as const;

/** Returns the `timeout` lines of the load balancer's configuration, in seconds, by name. */
export function readHaproxyTimeouts(): Readonly<Record<string, number>> {
  const lines = readFileSync(HAPROXY_CONFIG, 'utf8').matchAll(/^\s+timeout (\S+) (\d+)([smh])$/gm);
  return Object.fromEntries([...lines].map(([, name, count, unit]) => [name, Number(count) * SECONDS[unit as 's']]));
}
