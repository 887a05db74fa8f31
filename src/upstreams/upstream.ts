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

/** Lists are read again after this, whether or not the server has said that they changed. */
const REFRESH_MS = 60_000;
/** Between two readings, however often the server says that something has changed. */
const LEAST_BETWEEN_MS = 1_000;
/** A server that could not be asked is asked again after the first, doubled each time up to the last. */
const RETRY_MS = { first: 1_000, last: 15_000 };
/** The SDK's own timer is behind ours: it is for what we have let go. */
const SDK_MARGIN_MS = 500;
const STATE_NUMBERS = { closed: 0, half_open: 1, open: 2 } as const;

export interface UpstreamDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Pick<Metrics, 'upstreamRequests' | 'upstreamSeconds' | 'upstreamBreaker'>;
  /** A server that traces its own work goes on with ours (SEP-414). */
  readonly tracing: Pick<Tracing, 'traceParent'>;
  readonly schemas: Schemas;
}

export interface UpstreamCall {
  /** At the server. */
  readonly tool: string;
  readonly args: Readonly<Record<string, unknown>>;
  /** The same when a call is made again: a server may know by it that it has done this already. */
  readonly callId: string;
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressCallback | undefined;
  /** Undefined where nobody can be asked. */
  readonly input?: InputExchange | undefined;
}

/** What is sent with a request that may be answered by questions, and how. */
export interface ExchangeOptions {
  readonly params: { readonly inputResponses?: Json; readonly requestState?: string; readonly _meta?: Json };
  readonly options: RequestOptions;
}

type Json = Readonly<Record<string, unknown>>;

type ResultCheck = DiscoveredTool['resultProblem'];

/** What is asked of a server. */
export type Operation = 'tools/call' | 'lists' | 'resources/read' | 'prompts/get' | 'completion/complete';

/**
 * One upstream server as this process sees it: its connection, what it offers, and the breaker between. Five faults among
 * ten requests open the breaker; then nothing is asked for some seconds but what finds out whether the server is back.
 * What it offers is kept while it is away.
 */
export class Upstream {
  readonly server: ToolServer;
  readonly #deps: UpstreamDeps;
  readonly #breaker: Breaker;
  readonly #connection: SharedConnection;
  readonly #stop = new AbortController();
  #inFlight = 0;
  #capabilities: UpstreamCapabilities = NO_CAPABILITIES;
  /** Aborts when the server says that a list has changed, and when nobody is left to be told. */
  #change = new AbortController();
  readonly #keeping: Promise<void>;

  constructor(server: ToolServer, deps: UpstreamDeps) {
    this.server = server;
    this.#deps = deps;
    const { clock, metrics, logger } = deps;
    const { name } = server;
    this.#breaker = new Breaker(deps, {
      isFault: (error) => error instanceof UpstreamFault,
      // What a caller's signal ends is no answer.
      saysNothing: (error) => !(error instanceof UpstreamRefusal || error instanceof MissingCapability),
      onChange: (state) => {
        metrics.upstreamBreaker.set({ server: name }, STATE_NUMBERS[state]);
        logger.warn({ server: name, state }, 'the breaker of an upstream server');
      },
    });
    metrics.upstreamBreaker.set({ server: name }, STATE_NUMBERS.closed);
    this.#connection = new SharedConnection((onEnd) => {
      const onChange = () => this.#change.abort();
      const onFlood = () => logger.warn({ server: name }, 'an upstream server sends more than anybody can use');
      const onClose = () => {
        onEnd();
        // Nobody is told of changes until there is another one, which the next reading opens.
        onChange();
      };
      return connect(server, { clock, logger, onChange, onFlood, onClose }, this.#stop.signal);
    });
    this.#keeping = this.#keepCurrent();
  }

  /** What it said last. */
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
   * Asks the server something that it may answer by asking back.
   * @throws UpstreamFault, UpstreamBusy, UpstreamRefusal, MissingCapability, the reason of the signal
   */
  requestWithInput<T extends object>(
    operation: Operation,
    { signal, input }: { readonly signal: AbortSignal; readonly input?: InputExchange | undefined },
    work: (client: Client, exchange: ExchangeOptions) => Promise<T>,
  ): Promise<T | InputRequiredAnswer> {
    return this.request(operation, signal, async (client, options) => {
      // Older servers would ask over their connection, where nobody can tell which call it is for.
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
   * Asks the server something, within its bounds.
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

  /** Ends what is under way, and the program where there is one. */
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

  /** @param before the check there was when the call began: a server that has changed its list since may have gone by either */
  #resultProblem(tool: string, { structuredContent }: CallToolResult, before: ResultCheck): string | undefined {
    const check = this.#capabilities.tools.get(tool)?.resultProblem;
    if (!check || !before) return undefined;
    if (check !== before && structuredContent !== undefined && before(structuredContent) === undefined)
      return undefined;
    return structuredContent === undefined ? 'has no structured part' : check(structuredContent);
  }

  /** Reads the lists at once, after a change, and by the clock; sooner while the server cannot be asked. */
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
      logger.warn({ server, tool, reason }, 'a tool of an upstream server is left out: its schema cannot be used');
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
      if (!this.#stop.signal.aborted) logger.warn({ server, err: error }, 'an upstream server could not be asked');
      return false;
    }
  }
}

function paramsOf({ name, allowedInputRequests }: ToolServer, input: InputExchange): ExchangeOptions['params'] {
  const { capabilities, inputResponses, requestState, server = name } = input;
  // What has the name of the request may have moved to another server since: that one asks for itself.
  const isMeant = server === name;
  return {
    ...(inputResponses !== undefined && isMeant ? { inputResponses } : {}),
    ...(requestState !== undefined && isMeant ? { requestState } : {}),
    // Stands above what the connection itself has declared, which is nothing.
    _meta: { [CAPABILITIES_KEY]: capabilitiesFor(allowedInputRequests, capabilities) },
  };
}

/** Whether it is MCP's `InputRequiredResult`; the SDK's own guard would load the SDK. */
function isInputRequired(answer: object): answer is Json {
  return 'resultType' in answer && answer.resultType === 'input_required';
}

function resultOf(error: unknown): string {
  if (error instanceof UpstreamFault) return error.kind;
  if (error instanceof UpstreamBusy) return error.reason;
  if (error instanceof MissingCapability) return 'input_required';
  return error instanceof UpstreamRefusal ? 'refused' : 'failed';
}
