import type { CallToolResult, Client, ProgressCallback, RequestOptions } from '@modelcontextprotocol/client';
import type { ToolServer } from '../catalogue/tool-servers.ts';
import { Breaker, BreakerOpenError } from '../lib/breaker.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import { withDeadline } from '../lib/with-deadline.ts';
import { type DiscoveredTool, NO_CAPABILITIES, readCapabilities, type UpstreamCapabilities } from './capabilities.ts';
import { connect } from './connection.ts';
import { errorOf, MissingCapability, UpstreamBusy, UpstreamFault, UpstreamRefusal } from './faults.ts';
import {
  CAPABILITIES_KEY,
  capabilitiesFor,
  type InputExchange,
  InputRequiredAnswer,
  missingCapability,
  parseInputRequests,
} from './input-requests.ts';
import type { Schemas } from './schemas.ts';
import { SharedConnection } from './shared-connection.ts';

/** Interval at which the lists are read, also without a change notification. */
const REFRESH_MS = 60_000;
/** Minimum time between two readings, regardless of the number of change notifications. */
const LEAST_BETWEEN_MS = 1_000;
/** Delay after a failed reading: starts with `first` and doubles up to `last`. */
const RETRY_MS = { first: 1_000, last: 15_000 };
/** Margin of the SDK's timeout beyond the own one. It cleans up requests that are no longer awaited. */
const SDK_MARGIN_MS = 500;
const STATE_NUMBERS = { closed: 0, half_open: 1, open: 2 } as const;

export interface UpstreamDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Pick<Metrics, 'upstreamRequests' | 'upstreamSeconds' | 'upstreamBreaker'>;
  /** Source of the `traceparent` with which a server continues the trace (SEP-414). */
  readonly tracing: Pick<Tracing, 'traceParent'>;
  readonly schemas: Schemas;
}

export interface UpstreamCall {
  /** Name on the server. */
  readonly tool: string;
  readonly args: Readonly<Record<string, unknown>>;
  /** Equal for repetitions of a call, so that a server can detect that it has already executed the call. */
  readonly callId: string;
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressCallback | undefined;
  /** Undefined when the caller cannot receive input requests. */
  readonly input?: InputExchange | undefined;
}

/** Parameters and options of a request that the server may answer with input requests. */
export interface ExchangeOptions {
  readonly params: { readonly inputResponses?: Json; readonly requestState?: string; readonly _meta?: Json };
  readonly options: RequestOptions;
}

type Json = Readonly<Record<string, unknown>>;

type ResultCheck = DiscoveredTool['resultProblem'];

/** Kind of a request; a label of the metrics. */
export type Operation = 'tools/call' | 'lists' | 'resources/read' | 'prompts/get' | 'completion/complete';

/**
 * Client side of one tool server in this process: connection, capabilities and circuit breaker. Five faults in ten
 * requests open the breaker. For some seconds it then rejects all requests, and after that it lets one probe pass. The
 * capabilities are kept while the server is unavailable.
 */
export class Upstream {
  readonly server: ToolServer;
  readonly #deps: UpstreamDeps;
  readonly #breaker: Breaker;
  readonly #connection: SharedConnection;
  readonly #stop = new AbortController();
  #inFlight = 0;
  #capabilities: UpstreamCapabilities = NO_CAPABILITIES;
  /** Aborts when the server reports a changed list, and when the connection that reports changes has ended. */
  #change = new AbortController();
  readonly #keeping: Promise<void>;

  constructor(server: ToolServer, deps: UpstreamDeps) {
    this.server = server;
    this.#deps = deps;
    const { clock, metrics, logger } = deps;
    const { name } = server;
    this.#breaker = new Breaker(deps, {
      isFault: (error) => error instanceof UpstreamFault,
      // A request that its caller cancelled says nothing about the server.
      saysNothing: (error) => !(error instanceof UpstreamRefusal || error instanceof MissingCapability),
      onChange: (state) => {
        metrics.upstreamBreaker.set({ server: name }, STATE_NUMBERS[state]);
        logger.warn({ server: name, state }, 'upstream circuit breaker changed state');
      },
    });
    metrics.upstreamBreaker.set({ server: name }, STATE_NUMBERS.closed);
    this.#connection = new SharedConnection((onEnd) => {
      const onChange = () => this.#change.abort();
      const onFlood = () =>
        logger.warn({ server: name }, 'upstream server exceeded the message rate, closing its connection');
      const onClose = () => {
        onEnd();
        // No changes are reported without a connection. The abort triggers a reading, which opens a new connection.
        onChange();
      };
      return connect(server, { clock, logger, onChange, onFlood, onClose }, this.#stop.signal);
    });
    this.#keeping = this.#keepCurrent();
  }

  /** Result of the latest successful reading. */
  get capabilities(): UpstreamCapabilities {
    return this.#capabilities;
  }

  /** @throws UpstreamFault, UpstreamBusy, UpstreamRefusal, MissingCapability, the reason of the signal */
  callTool({
    tool,
    args,
    callId,
    signal,
    onProgress,
    input,
  }: UpstreamCall): Promise<CallToolResult | InputRequiredAnswer> {
    return this.requestWithInput('tools/call', { signal, input }, async (client, { params, options }) => {
      const { traceParent: traceparent } = this.#deps.tracing;
      const trace = traceparent === undefined ? {} : { traceparent };
      const _meta = { ...params._meta, 'tollgate/toolCallId': callId, ...trace };
      const progress = onProgress ? { onprogress: onProgress } : {};
      const request = { name: tool, arguments: { ...args }, ...params, _meta };
      const before = this.#capabilities.tools.get(tool)?.resultProblem;
      const result = await client.callTool(request, { ...options, ...progress });
      const unchecked = result.isError || (options.allowInputRequired && isInputRequired(result));
      const problem = unchecked ? undefined : this.#resultProblem(tool, result, before);
      if (problem !== undefined) throw new UpstreamFault('broken', `the result of ${tool} ${problem}`);
      return result;
    });
  }

  /**
   * Sends a request that the server may answer with input requests.
   * @throws UpstreamFault, UpstreamBusy, UpstreamRefusal, MissingCapability, the reason of the signal
   */
  requestWithInput<T extends object>(
    operation: Operation,
    { signal, input }: { readonly signal: AbortSignal; readonly input?: InputExchange | undefined },
    work: (client: Client, exchange: ExchangeOptions) => Promise<T>,
  ): Promise<T | InputRequiredAnswer> {
    return this.request(operation, signal, async (client, options) => {
      // Servers of the older era send input requests over the connection, without a reference to the call.
      if (!input || client.getProtocolEra() !== 'modern') return work(client, { params: {}, options });
      const exchange = {
        params: paramsOf(this.server, input),
        options: { ...options, allowInputRequired: true },
      };
      try {
        const answer = await work(client, exchange);
        if (!isInputRequired(answer)) return answer;
        return new InputRequiredAnswer(parseInputRequests(answer, this.server, input));
      } catch (thrown) {
        const refusal = errorOf(thrown);
        throw refusal instanceof UpstreamRefusal ? (missingCapability(refusal, this.server, input) ?? refusal) : thrown;
      }
    });
  }

  /**
   * Sends a request within the concurrency limit, circuit breaker and timeout of the server.
   * @throws UpstreamFault, UpstreamBusy, UpstreamRefusal, the reason of the signal
   */
  async request<T>(
    operation: Operation,
    signal: AbortSignal,
    work: (client: Client, options: RequestOptions) => Promise<T>,
  ): Promise<T> {
    const { clock, metrics } = this.#deps;
    const server = this.server.name;
    const startedAt = clock.now();
    let result = 'ok';
    try {
      const answer = await this.#admitted(() => this.#attempt(signal, work));
      if (answer instanceof InputRequiredAnswer) result = 'input_required';
      return answer;
    } catch (error) {
      result = signal.aborted ? 'cancelled' : resultOf(error);
      throw error;
    } finally {
      metrics.upstreamRequests.inc({ server, operation, result });
      if (operation === 'tools/call') metrics.upstreamSeconds.observe({ server }, (clock.now() - startedAt) / 1_000);
    }
  }

  /** Ends requests in flight, the connection and the program, if the server is one. */
  async close(): Promise<void> {
    this.#stop.abort(new UpstreamFault('broken', 'closed'));
    await this.#connection.close();
    await this.#keeping;
  }

  async #admitted<T>(attempt: () => Promise<T>): Promise<T> {
    if (this.#inFlight >= this.server.concurrency) throw new UpstreamBusy('concurrency');
    this.#inFlight += 1;
    try {
      return await this.#breaker.run(attempt);
    } catch (error) {
      throw error instanceof BreakerOpenError ? new UpstreamBusy('breaker_open') : error;
    } finally {
      this.#inFlight -= 1;
    }
  }

  #attempt<T>(callerSignal: AbortSignal, work: (client: Client, options: RequestOptions) => Promise<T>): Promise<T> {
    const { timeoutMs } = this.server;
    const signal = AbortSignal.any([callerSignal, this.#stop.signal]);
    const timeoutError = () => new UpstreamFault('timeout', `no answer within ${timeoutMs} ms`);
    return withDeadline({ clock: this.#deps.clock, timeoutMs, timeoutError, signal }, (expired) => {
      return this.#connection.use(async (client) => {
        try {
          expired.throwIfAborted();
          return await work(client, { signal: expired, timeout: timeoutMs + SDK_MARGIN_MS });
        } catch (thrown) {
          throw expired.aborted ? expired.reason : errorOf(thrown);
        }
      });
    });
  }

  /**
   * Checks the structured content of a result.
   * @param before the check at the start of the call. If the server has changed its list since, a result that is valid
   *   by either check is accepted.
   */
  #resultProblem(tool: string, { structuredContent }: CallToolResult, before: ResultCheck): string | undefined {
    const check = this.#capabilities.tools.get(tool)?.resultProblem;
    if (!check || !before) return undefined;
    if (check !== before && structuredContent !== undefined && before(structuredContent) === undefined)
      return undefined;
    return structuredContent === undefined ? 'has no structured content' : check(structuredContent);
  }

  /** Reads the lists at start, after each change, and every `REFRESH_MS`; after a failure, by `RETRY_MS`. */
  async #keepCurrent(): Promise<void> {
    const { clock } = this.#deps;
    const stop = this.#stop.signal;
    for (let failures = 0; !stop.aborted; ) {
      this.#change = new AbortController();
      failures = (await this.#read()) && this.#capabilities.complete ? 0 : failures + 1;
      const waitMs = failures === 0 ? REFRESH_MS : Math.min(RETRY_MS.first * 2 ** (failures - 1), RETRY_MS.last);
      await sleep(clock, LEAST_BETWEEN_MS, stop);
      await sleep(clock, waitMs - LEAST_BETWEEN_MS, AbortSignal.any([stop, this.#change.signal]));
    }
  }

  async #read(): Promise<boolean> {
    const { logger, schemas } = this.#deps;
    const server = this.server.name;
    const onOmitted = (tool: string, reason: string) => {
      logger.warn({ server, tool, reason }, 'upstream tool omitted');
    };
    try {
      this.#capabilities = await this.request('lists', this.#stop.signal, (client, options) => {
        return readCapabilities(
          client,
          { server: this.server, before: this.#capabilities, options },
          { schemas, onOmitted },
        );
      });
      return true;
    } catch (error) {
      if (!this.#stop.signal.aborted)
        logger.warn({ server, err: error }, 'reading upstream capabilities failed, retrying');
      return false;
    }
  }
}

function paramsOf({ name, allowedInputRequests }: ToolServer, input: InputExchange): ExchangeOptions['params'] {
  const { capabilities, inputResponses, requestState, server = name } = input;
  // The tool may have moved to another server since. That server gets no answers and sends its own input requests.
  const isMeant = server === name;
  return {
    ...(inputResponses !== undefined && isMeant ? { inputResponses } : {}),
    ...(requestState !== undefined && isMeant ? { requestState } : {}),
    // Overrides the capabilities of the connection, which are empty.
    _meta: { [CAPABILITIES_KEY]: capabilitiesFor(allowedInputRequests, capabilities) },
  };
}

/** Returns whether a response is MCP's `InputRequiredResult`. The SDK's own guard would load the SDK. */
function isInputRequired(answer: object): answer is Json {
  return 'resultType' in answer && answer.resultType === 'input_required';
}

function resultOf(error: unknown): string {
  if (error instanceof UpstreamFault) return error.kind;
  if (error instanceof UpstreamBusy) return error.reason;
  if (error instanceof MissingCapability) return 'input_required';
  return error instanceof UpstreamRefusal ? 'refused' : 'failed';
}
