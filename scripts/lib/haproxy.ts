import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { LOOPBACK } from './ports.ts';
import { type Environment, httpStatus, ManagedProcess, PROJECT_ROOT, type Startable } from './processes.ts';
import { httpUrl } from './tollgate-processes.ts';

/** The configuration of the deployment: compose runs it, `npm run cluster` does, and so do the tests. */
export const HAPROXY_CONFIG: string = join(PROJECT_ROOT, 'deploy/haproxy/haproxy.cfg');

/** How many gateways the configuration names. */
export const HAPROXY_GATEWAYS = 3;

/** The installed version; undefined where there is none. */
export function haproxyVersion(): string | undefined {
  const { status, stdout } = spawnSync('haproxy', ['-v'], { encoding: 'utf8', timeout: 20_000 });
  return status === 0 ? /version (\d+\.\d+\.\d+)/.exec(stdout)?.[1] : undefined;
}

/** What the configuration takes from its environment. */
export function haproxyEnvironment(listenPort: number, gatewayUrls: readonly string[]): Environment {
  const [first = '', second = '', third = ''] = gatewayUrls.map((url) => new URL(url).host);
  return { LISTEN: `${LOOPBACK}:${listenPort}`, GATEWAY_1: first, GATEWAY_2: second, GATEWAY_3: third };
}

/** HAProxy on loopback in front of three gateways; ready when a request comes through to one of them. */
export function haproxy(port: number, gatewayUrls: readonly string[], config: string = HAPROXY_CONFIG): Startable {
  const env = { PATH: process.env.PATH, ...haproxyEnvironment(port, gatewayUrls) };
  return {
    name: 'HAProxy',
    // -db: in the foreground, one process.
    launch: () => new ManagedProcess({ name: 'haproxy', command: 'haproxy', args: ['-db', '-f', config], env }),
    isReady: async () => (await httpStatus(`${httpUrl(port)}/health/ready`)) === 200,
  };
}
