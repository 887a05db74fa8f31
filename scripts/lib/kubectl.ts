import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { freePort, LOOPBACK } from './ports.ts';
import { ManagedProcess } from './processes.ts';
import { UserError } from './user-error.ts';

const run = promisify(execFile);
const MAX_OUTPUT_BYTES = 32 * 1024 * 1024;
const TIMEOUT_MS = 10 * 60_000;

/** kubectl for one namespace of the cluster that KUBECONFIG names. */
export class Kubectl {
  readonly #namespace: string;

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  /** Returns the output. @throws UserError with the error output */
  async run(...args: readonly string[]): Promise<string> {
    const options = { timeout: TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES };
    try {
      return (await run('kubectl', ['--namespace', this.#namespace, ...args], options)).stdout;
    } catch (error) {
      const { stderr = '', message } = error as Error & { stderr?: string };
      throw new UserError(`kubectl ${args.join(' ')}: ${stderr.trim() || message}`, { cause: error });
    }
  }

  /** Returns the names of the objects of a kind, with a label selector if given. */
  async names(kind: string, selector?: string): Promise<string[]> {
    const text = await this.run('get', kind, ...(selector ? ['--selector', selector] : []), '--output', 'name');
    return text.split('\n').filter(Boolean);
  }

  /** Resolves when every Deployment and StatefulSet has all pods of its last change. */
  async rolledOut(): Promise<void> {
    for (const workload of await this.names('deployments,statefulsets')) {
      await this.run('rollout', 'status', workload, '--timeout=10m');
    }
  }

  /** Forwards a free port to a Service until `close`. It ends with the pod that kubectl has selected. */
  async forward(service: string, port: number): Promise<{ readonly url: string; close(): Promise<unknown> }> {
    const local = await freePort();
    const args = ['--namespace', this.#namespace, 'port-forward', `service/${service}`, `${local}:${port}`];
    const child = new ManagedProcess({ name: 'port-forward', command: 'kubectl', args, env: process.env });
    return { url: `http://${LOOPBACK}:${local}`, close: () => child.stop() };
  }
}
