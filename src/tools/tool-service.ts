import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { settledWithin } from '../lib/with-deadline.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { CallStore } from './call-store.ts';
import type { ToolOutcome } from './outcome.ts';
import { beginCall, type CallEnd, type PipelineDeps, type StoppableRequest } from './pipeline.ts';
import { type CallingRun, RunJournal } from './run-journal.ts';
import { StandaloneJournal, type StandaloneJournalDeps } from './standalone-journal.ts';
import type { ToolCallRequest, ToolResult } from './tool-call.ts';
import { traceCall } from './tool-tracing.ts';

/** Time that running calls have to complete when the process stops. */
const CLOSE_TIMEOUT_MS = 5_000;
/** Time to record the calls that were stopped after `CLOSE_TIMEOUT_MS`. */
const RECORD_TIMEOUT_MS = 2_000;

export interface ToolServiceDeps extends Omit<PipelineDeps, 'timeoutMs'> {
  readonly calls: CallStore;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'toolCalls' | 'toolSeconds' | 'toolCallsInFlight' | 'refusedWrites'>;
  readonly logger: Logger;
}

export interface ToolServiceOptions {
  /** Timeout of one execution, in milliseconds. */
  readonly timeoutMs: number;
  /** Maximum number of concurrent calls outside runs in this process. */
  readonly concurrency: number;
}

/** Executes tool calls for all transports and agents, and bounds the calls outside runs that are in flight. */
export class ToolService {
  readonly #deps: ToolServiceDeps;
  readonly #standalone: StandaloneJournalDeps;
  readonly #concurrency: number;
  readonly #pipeline: PipelineDeps;
  readonly #inFlight = new Set<Promise<unknown>>();
  readonly #stop = new AbortController();
  #closing = false;

  constructor(deps: ToolServiceDeps, options: ToolServiceOptions) {
    this.#deps = deps;
    this.#concurrency = options.concurrency;
    this.#pipeline = { ...deps, timeoutMs: options.timeoutMs };
    this.#standalone = { ...deps, rejection: () => this.#rejection(), stop: this.#stop.signal };
  }

  /**
   * Executes a call of an agent. Refusals and failures are outcomes.
   * @throws RunOwnershipLost when another worker owns the run or the run has ended
   */
  callInRun(request: StoppableRequest, run: CallingRun): Promise<ToolOutcome> {
    return traceCall(this.#deps, request, async () => {
      const finish = await beginCall(this.#pipeline, request, new RunJournal(this.#deps, request, run));
      return (await finish()).outcome;
    });
  }

  /**
   * Executes a call outside a run.
   * @returns when the call has begun or was recognised as a repetition; `finished` settles with the result
   * @throws TollgateError for a refusal: PERMISSION_DENIED, QUOTA_EXCEEDED, RATE_LIMITED, FORMAT_ERROR, TOOL_NOT_FOUND,
   *   TOOL_NOT_AVAILABLE, IDEMPOTENCY_CONFLICT, REQUEST_STATE_INVALID, AUTH_SERVICE_UNAVAILABLE, OVERLOADED,
   *   SERVER_DRAINING
   */
  call(request: ToolCallRequest, limit: MessageLimit): Promise<{ readonly finished: Promise<ToolResult> }> {
    return traceCall(this.#deps, request, async (span) => {
      const journal = new StandaloneJournal(this.#standalone, request, limit);
      const begun = beginCall(this.#pipeline, this.#stoppable(request), journal);
      const finished = begun.then((finish) => finish()).then((end) => resultOf(request, end));
      this.#track(finished);
      await begun;
      span.until(finished);
      return { finished };
    });
  }

  /** Waits for running calls, then stops the rest and waits for their records. The sweep ends what remains. */
  async close(): Promise<void> {
    this.#closing = true;
    await settledWithin(this.#deps.clock, CLOSE_TIMEOUT_MS, this.#inFlight);
    this.#stop.abort(new TollgateError('SERVER_DRAINING'));
    await settledWithin(this.#deps.clock, RECORD_TIMEOUT_MS, this.#inFlight);
  }

  #stoppable(request: ToolCallRequest): StoppableRequest {
    const { signal } = request;
    return { ...request, signal: signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal };
  }

  #rejection(): TollgateError | undefined {
    if (this.#closing) return new TollgateError('SERVER_DRAINING');
    return this.#inFlight.size >= this.#concurrency ? new TollgateError('OVERLOADED') : undefined;
  }

  #track(finished: Promise<unknown>): void {
    const { toolCallsInFlight } = this.#deps.metrics;
    const remove = () => {
      this.#inFlight.delete(finished);
      toolCallsInFlight.set(this.#inFlight.size);
    };
    this.#inFlight.add(finished);
    toolCallsInFlight.set(this.#inFlight.size);
    finished.then(remove, remove);
  }
}

function resultOf({ tool, callId }: ToolCallRequest, { outcome, repeated, status }: CallEnd): ToolResult {
  return { tool, tool_call_id: callId, ...outcome, repeated, rate_limit_status: status };
}
