import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HAPROXY_CONFIG, haproxy } from '../../scripts/lib/haproxy.ts';
import { freePort } from '../../scripts/lib/ports.ts';
import { start } from '../../scripts/lib/processes.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { closeAfter } from './open-resources.ts';

export interface LoadBalancerOptions {
  /** Whether the deployment's cookie keeps a client on its node. */
  readonly affinity?: boolean;
  /** False: polling sessions of a node that is not ready go to another node, as behind proxies that forget such a node. */
  readonly keepsPolling?: boolean;
}

/** Starts HAProxy with the configuration of the deployment, in front of three gateways, until the end of the file. */
export async function startLoadBalancer(
  gatewayUrls: readonly string[],
  { affinity = true, keepsPolling = true }: LoadBalancerOptions = {},
): Promise<{ url: string }> {
  const port = await freePort();
  const config = affinity && keepsPolling ? HAPROXY_CONFIG : await configWithout({ affinity });
  const child = await start(haproxy(port, gatewayUrls, config));
  // No soft stop, because the tests' clients close later.
  closeAfter('file', async () => {
    child.kill('SIGKILL');
    await child.exited;
  });
  return { url: httpUrl(port) };
}

/** A copy of the deployment's configuration without `force-persist`, and on request without the cookie. */
async function configWithout({ affinity }: { readonly affinity: boolean }): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-haproxy-'));
  closeAfter('file', () => rm(folder, { recursive: true, force: true }));
  const config = (await readFile(HAPROXY_CONFIG, 'utf8')).replace(/^ +force-persist .*$/gm, '');
  const without = affinity ? config : config.replace(/^ +cookie .*$/gm, '').replace(/ cookie gateway-\d$/gm, '');
  if ((affinity ? /^[^#]*force-persist/m : /^[^#]*cookie/m).test(without))
    throw new Error('the configuration keeps clients on nodes in a way that is not known here');
  const file = join(folder, 'haproxy.cfg');
  await writeFile(file, without);
  return file;
}
