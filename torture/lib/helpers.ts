import { haproxy } from '../../scripts/lib/haproxy.ts';
import { httpStatus, type ManagedProcess, type Startable, start } from '../../scripts/lib/processes.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';

/** A process beside those of the product: tool server, agent, HAProxy. */
export class Helper {
  readonly #startable: Startable;
  #process: ManagedProcess;

  protected constructor(startable: Startable, process: ManagedProcess) {
    this.#startable = startable;
    this.#process = process;
  }

  static async start(startable: Startable): Promise<Helper> {
    return new Helper(startable, await start(startable));
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process.exited;
  }

  async restart(): Promise<void> {
    this.#process = await start(this.#startable);
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** Starts a successor, and returns the process that it replaces. */
  protected async replace(successor: Startable): Promise<ManagedProcess> {
    const old = this.#process;
    this.#process = await start(successor);
    return old;
  }
}

/** HAProxy, which can be reloaded: a new process accepts, and the old one serves its connections to their end. */
export class Balancer extends Helper {
  readonly #port: number;
  readonly #gatewayUrls: readonly string[];
  /** Processes that end their connections; HAProxy closes those that remain after 30 s. */
  #old: ManagedProcess[] = [];

  private constructor(process: ManagedProcess, port: number, gatewayUrls: readonly string[]) {
    // HAProxy answers 503 while no gateway is ready, as during an outage of Redis.
    super({ ...haproxy(port, gatewayUrls), isReady: () => answers(port) }, process);
    this.#port = port;
    this.#gatewayUrls = gatewayUrls;
  }

  static async on(port: number, gatewayUrls: readonly string[]): Promise<Balancer> {
    return new Balancer(await start(haproxy(port, gatewayUrls)), port, gatewayUrls);
  }

  async reload(): Promise<void> {
    const old = await this.replace({
      ...haproxy(this.#port, this.#gatewayUrls, { replaces: this.pid }),
      isReady: () => answers(this.#port),
    });
    this.#old = [...this.#old.filter(({ running }) => running), old];
  }

  override async kill(): Promise<void> {
    const old = this.#old.splice(0);
    for (const process of old) process.kill('SIGKILL');
    await Promise.all([super.kill(), ...old.map(({ exited }) => exited)]);
  }
}

async function answers(port: number): Promise<boolean> {
  return (await httpStatus(`${httpUrl(port)}/health/ready`)) !== undefined;
}
