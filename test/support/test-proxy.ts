import { type ManagedProcess, type Startable, start } from '../../scripts/lib/processes.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { closeAfter } from './open-resources.ts';

/** A reverse proxy in front of gateways. */
export interface TestProxy {
  readonly url: string;
  /** Its port with TLS and HTTP/2, if it was started with certificates. */
  readonly tlsUrl: string;
  /** Ends it with SIGKILL, and starts it again at the same ports. */
  restart(): Promise<void>;
}

/** Starts a proxy until the end of the file. */
export async function startProxy(
  startable: Startable,
  { port, tlsPort }: { readonly port: number; readonly tlsPort: number },
): Promise<TestProxy> {
  let child: ManagedProcess = await start(startable);
  // No soft stop, because the tests' clients close later.
  const kill = async () => {
    child.kill('SIGKILL');
    await child.exited;
  };
  closeAfter('file', kill);
  const restart = async () => {
    await kill();
    child = await start(startable);
  };
  return { url: httpUrl(port), tlsUrl: httpUrl(tlsPort).replace('http:', 'https:'), restart };
}
