import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';

/** Time after the deadline of a run in which its worker can end it, before a sweep does. */
export const SWEEP_MARGIN_MS = 5_000;
/** How long a request id and its run are kept: one day, and longer if agents have timeouts of their own. */
export const RUN_KEPT_MS = 24 * 3_600_000;

/** The times of runs, all in milliseconds from acceptance. Gateways and workers must compute them alike. */
export class RunLifetimes {
  readonly #agents: AgentCatalogue;
  readonly #defaultMs: number;
  /**
   * How long a run is kept. The same for all runs, because the list of a user's runs is trimmed by it. A run must
   * outlive its deadline, after which the sweep ends it.
   */
  readonly keptMs: number;

  /** @param defaultMs time from acceptance to the terminal event, for agents without a timeout of their own */
  constructor(agents: AgentCatalogue, defaultMs: number) {
    this.#agents = agents;
    this.#defaultMs = defaultMs;
    this.keptMs = RUN_KEPT_MS + agents.longestTimeoutMs(defaultMs) - defaultMs;
  }

  /** Returns the time until the terminal event of a run of that agent. */
  timeoutMs(agent: string): number {
    return this.#agents.timeoutMs(agent, this.#defaultMs);
  }

  /** Returns the time after which the sweep ends a run of that agent. */
  sweepMs(agent: string): number {
    return this.timeoutMs(agent) + SWEEP_MARGIN_MS;
  }
}
