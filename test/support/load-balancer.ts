import { haproxy } from '../../scripts/lib/haproxy.ts';
import { freePort } from '../../scripts/lib/ports.ts';
import { start } from '../../scripts/lib/processes.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { closeAfter } from './open-resources.ts';

/** HAProxy with the configuration of the deployment, in front of three gateways, until the end of the file. */
export async function startLoadBalancer(gatewayUrls: readonly string[]): Promise<{ url: string }> {
  const port = await freePort();
  const child = await start(haproxy(port, gatewayUrls));
  // No soft stop: the tests' clients are closed after it.
  closeAfter('file', async () => {
    child.kill('SIGKILL');
    await child.exited;
  });
  return { url: httpUrl(port) };
}
