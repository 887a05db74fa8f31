import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HAPROXY_CONFIG, haproxy } from '../../scripts/lib/haproxy.ts';
import { freePorts } from '../../scripts/lib/ports.ts';
import { closeAfter } from './open-resources.ts';
import { startProxy, type TestProxy } from './test-proxy.ts';

export interface LoadBalancerOptions {
  /** Whether the deployment's cookie keeps a client on its node. */
  readonly affinity?: boolean;
  /** False: polling sessions of a node that is not ready go to another node, as behind proxies that forget such a node. */
  readonly keepsPolling?: boolean;
  /** A file with certificate and key, for a second port with TLS and HTTP/2. */
  readonly pem?: string;
  /** False: without `option http-no-delay`. */
  readonly noDelay?: boolean;
}

/** Starts HAProxy with the configuration of the deployment, in front of three gateways, until the end of the file. */
export async function startLoadBalancer(
  gatewayUrls: readonly string[],
  { affinity = true, keepsPolling = true, pem, noDelay = true }: LoadBalancerOptions = {},
): Promise<TestProxy> {
  const [port = 0, tlsPort = 0] = await freePorts(2);
  const isChanged = !affinity || !keepsPolling || pem !== undefined || !noDelay;
  const bind = pem && `    bind 127.0.0.1:${tlsPort} ssl crt ${pem} alpn h2,http/1.1`;
  const config = isChanged ? await changedConfig({ affinity, keepsPolling, bind, noDelay }) : HAPROXY_CONFIG;
  return startProxy(haproxy(port, gatewayUrls, { config }), { port, tlsPort });
}

interface Changes {
  readonly affinity: boolean;
  readonly keepsPolling: boolean;
  readonly bind: string | undefined;
  readonly noDelay: boolean;
}

/** A copy of the deployment's configuration without `force-persist` or without the cookie, or with further changes. */
async function changedConfig({ affinity, keepsPolling, bind, noDelay }: Changes): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-haproxy-'));
  closeAfter('file', () => rm(folder, { recursive: true, force: true }));
  const original = await readFile(HAPROXY_CONFIG, 'utf8');
  let config = affinity && keepsPolling ? original : original.replace(/^ +force-persist .*$/gm, '');
  if (!affinity) config = config.replace(/^ +cookie .*$/gm, '').replace(/ cookie gateway-\d$/gm, '');
  if (!noDelay) config = config.replace(/^ +option http-no-delay$/m, '');
  if (bind) config = config.replace(/^ +bind .*$/m, (line) => `${line}\n${bind}`);
  const kept = affinity ? (keepsPolling ? undefined : /^[^#]*force-persist/m) : /^[^#]*cookie/m;
  if (kept?.test(config)) throw new Error('the configuration keeps clients on nodes in a way that is not known here');
  const file = join(folder, 'haproxy.cfg');
  await writeFile(file, config);
  return file;
}
