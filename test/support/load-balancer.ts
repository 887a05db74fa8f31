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
}

/** Starts HAProxy with the configuration of the deployment, in front of three gateways, until the end of the file. */
export async function startLoadBalancer(
  gatewayUrls: readonly string[],
  { affinity = true }: LoadBalancerOptions = {},
): Promise<{ url: string }> {
  const port = await freePort();
  const config = affinity ? HAPROXY_CONFIG : await configWithoutAffinity();
  const child = await start(haproxy(port, gatewayUrls, config));
  // No soft stop, because the tests' clients close later.
  closeAfter('file', async () => {
    child.kill('SIGKILL');
    await child.exited;
  });
  return { url: httpUrl(port) };
}

async function configWithoutAffinity(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-haproxy-'));
  closeAfter('file', () => rm(folder, { recursive: true, force: true }));
  const config = await readFile(HAPROXY_CONFIG, 'utf8');
  const without = config.replace(/^ +(cookie|force-persist) .*$/gm, '').replace(/ cookie gateway-\d$/gm, '');
  if (/^[^#]*cookie/m.test(without))
    throw new Error('the configuration keeps clients on nodes in a way that is not known here');
  const file = join(folder, 'haproxy.cfg');
  await writeFile(file, without);
  return file;
}
