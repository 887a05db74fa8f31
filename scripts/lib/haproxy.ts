import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { LOOPBACK } from './ports.ts';
import { type Environment, httpStatus, ManagedProcess, PROJECT_ROOT, type Startable } from './processes.ts';
import { httpUrl } from './tollgate-processes.ts';

/** The HAProxy configuration that compose, `npm run cluster` and the tests run. */
export const HAPROXY_CONFIG: string = join(PROJECT_ROOT, 'deploy/haproxy/haproxy.cfg');

/** Number of gateways in the configuration. */
export const HAPROXY_GATEWAYS = 3;

/** Returns the installed version, or undefined without one. */
export function haproxyVersion(): string | undefined {
  const { status, stdout } = spawnSync('haproxy', ['-v'], { encoding: 'utf8', timeout: 20_000 });
  return status === 0 ? /version (\d+\.\d+\.\d+)/.exec(stdout)?.[1] : undefined;
}

/** The environment variables that the configuration uses. */
export function haproxyEnvironment(listenPort: number, gatewayUrls: readonly string[]): Environment {
  const [first = '', second = '', third = ''] = gatewayUrls.map((url) => new URL(url).host);
  return { LISTEN: `${LOOPBACK}:${listenPort}`, GATEWAY_1: first, GATEWAY_2: second, GATEWAY_3: third };
}

export interface HaproxyOptions {
  readonly config?: string;
  /** Process id of the HAProxy that this one replaces: the old one stops accepting and ends with its connections. */
  readonly replaces?: number | undefined;
}

/** HAProxy on loopback in front of three gateways; ready when one of them answers a request through it. */
export function haproxy(
  port: number,
  gatewayUrls: readonly string[],
  { config = HAPROXY_CONFIG, replaces }: HaproxyOptions = {},
): Startable {
  const env = { PATH: process.env.PATH, ...haproxyEnvironment(port, gatewayUrls) };
  const args = ['-db', '-f', config, ...(replaces === undefined ? [] : ['-sf', String(replaces)])];
  return {
    name: 'HAProxy',
    // -db: in the foreground, one process.
    launch: () => new ManagedProcess({ name: 'haproxy', command: 'haproxy', args, env }),
    isReady: async () => (await httpStatus(`${httpUrl(port)}/health/ready`)) === 200,
  };
}
