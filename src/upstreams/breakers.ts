import { BREAKER_STATE_NUMBERS, Breaker, BreakerOpenError, type BreakerState } from '../lib/breaker.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { MissingCapability, RateLimited, UpstreamBusy, UpstreamFault, UpstreamRefusal } from './faults.ts';

/** Kind of a request; a label of the metrics. */
export type Operation = 'tools/call' | 'lists' | 'resources/read' | 'prompts/get' | 'completion/complete';
/** Kinds of requests with a circuit breaker each, so that faults of one kind do not stop the others. */
export type BreakerKind = 'calls' | 'reads' | 'lists';
const KINDS: Readonly<Record<Operation, BreakerKind>> = {
  'tools/call': 'calls',
  lists: 'lists',
  'resources/read': 'reads',
  'prompts/get': 'reads',
  'completion/complete': 'reads',
};

export interface BreakersDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Pick<Metrics, 'upstreamBreaker'>;
}

/** The circuit breakers of one server. The metric has the one of tool calls. */
export class Breakers {
  readonly #byKind: Readonly<Record<BreakerKind, Breaker>>;

  constructor(deps: BreakersDeps, server: string) {
    const { metrics, logger } = deps;
    const breaker = (kind: BreakerKind) =>
      new Breaker(deps, {
        isFault: (error) => error instanceof UpstreamFault,
        // A request that its caller cancelled says nothing about the server.
        saysNothing: (error) => !isAnswer(error),
        onChange: (state) => {
          if (kind === 'calls') metrics.upstreamBreaker.set({ server }, BREAKER_STATE_NUMBERS[state]);
          logger.warn({ server, breaker: kind, state }, 'upstream circuit breaker changed state');
        },
      });
    this.#byKind = { calls: breaker('calls'), reads: breaker('reads'), lists: breaker('lists') };
    metrics.upstreamBreaker.set({ server }, BREAKER_STATE_NUMBERS.closed);
  }

  get states(): Readonly<Record<BreakerKind, BreakerState>> {
    const { calls, reads, lists } = this.#byKind;
    return { calls: calls.state, reads: reads.state, lists: lists.state };
  }

  /** @throws UpstreamBusy without an attempt; otherwise the error of `attempt` */
  async run<T>(operation: Operation, attempt: () => Promise<T>): Promise<T> {
    try {
      return await this.#byKind[KINDS[operation]].run(attempt);
    } catch (error) {
      throw error instanceof BreakerOpenError ? new UpstreamBusy('breaker_open') : error;
    }
  }
}

/** Returns whether an error shows that the server works. */
function isAnswer(error: unknown): boolean {
  return error instanceof UpstreamRefusal || error instanceof MissingCapability || error instanceof RateLimited;
}
