import { freePorts } from '../../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, start } from '../../scripts/lib/processes.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { HAPROXY_CONFIG } from './haproxy-config.ts';
import { closeAfter } from './open-resources.ts';
import { HAPROXY } from './programs.ts';

/** What the configuration takes from its environment. */
export function haproxyEnvironment(listenPort: number, gatewayUrls: readonly string[]): Record<string, string> {
  const [first = '', second = '', third = ''] = gatewayUrls.map((url) => new URL(url).host);
  return { LISTEN: `127.0.0.1:${listenPort}`, GATEWAY_1: first, GATEWAY_2: second, GATEWAY_3: third };
}

/**
 * HAProxy with the configuration of the deployment, in front of three gateways, until the end of the file. It is ready
 * when a request comes through to one of them.
 */
export async function startLoadBalancer(gatewayUrls: readonly string[]): Promise<{ url: string }> {
  const [port = 0] = await freePorts(1);
  const url = httpUrl(port);
  const env = { PATH: process.env.PATH, ...haproxyEnvironment(port, gatewayUrls) };
  const haproxy = await start({
    name: 'HAProxy',
    // -db: in the foreground, one process.
    launch: () =>
      new ManagedProcess({ name: 'haproxy', command: HAPROXY.command, args: ['-db', '-f', HAPROXY_CONFIG], env }),
    isReady: async () => (await httpStatus(`${url}/health/ready`)) === 200,
  });
  // No soft stop: the tests' clients are closed after it.
  closeAfter('file', async () => {
    haproxy.kill('SIGKILL');
    await haproxy.exited;
  });
  return { url };
}
