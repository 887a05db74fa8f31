import type { CallToolResult, Client, ProgressCallback, RequestOptions } from '@modelcontextprotocol/client';
import type { ToolServer } from '../catalogue/tool-servers.ts';
import type { BreakerState } from '../lib/breaker.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Tracing } from '../lib/tracing.ts';
import { withDeadline } from '../lib/with-deadline.ts';
import { type BreakerKind, Breakers, type Operation } from './breakers.ts';
import type { DiscoveredTool, UpstreamCapabilities } from './capabilities.ts';
import { type Connection, type ConnectionDeps, connect, type Era } from './connection.ts';
import { Discovery, type DiscoveryStatus } from './discovery.ts';
import {
  errorOf,
  RateLimited,
  resultOf,
  SessionLost,
  UnusableResult,
  UpstreamBusy,
  UpstreamFault,
  UpstreamRefusal,
} from './faults.ts';
import { Holds } from './holds.ts';
import { saysSessionLost } from './http-answers.ts';
import {
  CAPABILITIES_KEY,
  capabilitiesFor,
  type InputExchange,
  InputRequiredAnswer,
  missingCapability,
  parseInputRequests,
} from './input-requests.ts';
import type { OmittedRow } from './rows.ts';
import type { Schemas } from './schemas.ts';
import { SharedConnection } from './shared-connection.ts';
import { callAsTask } from './tasks.ts';

/** Margin of the SDK's timeout beyond the own one. It cleans up requests that are no longer awaited. */
const SDK_MARGIN_MS = 500;
/**
 * Minimum time between two sessions that were renewed because of the words of an error. A tool can use the same words
 * for a session of its own.
 */
const RENEWAL_MS = 5_000;

export interface UpstreamDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Pick<Metrics, 'upstreamRequests' | 'upstreamSeconds' | 'upstreamBreaker' | 'upstreamOmitted'>;
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
  /** User for whom the call is made; a rate limit of the server can concern this user only. */
  readonly userId?: string | undefined;
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

interface RequestTraits {
  readonly userId?: string | undefined;
  /** Whether the request can be sent again although the server may have executed it. */
  readonly repeatable: boolean;
}

/** State of an upstream in this process. */
export interface UpstreamStatus extends DiscoveryStatus {
  /** Negotiated version; undefined before the first connection. */
  readonly protocol: string | undefined;
  /** Name and version that the server reports. */
  readonly implementation: { readonly name: string; readonly version: string } | undefined;
  readonly breakers: Readonly<Record<BreakerKind, BreakerState>>;
  /** Milliseconds until requests are sent again after a rate limit of the server. */
  readonly limitedMs: number;
}

/**
 * Client side of one tool server in this process: connection, capabilities and circuit breakers. Five faults in ten
 * requests of a kind open its breaker. For some seconds it then rejects these requests, and after that it lets one
 * probe pass. An answer of the server is not a fault, also if it is an error. The capabilities are kept while the
 * server is unavailable.
 */
export class Upstream {
  readonly server: ToolServer;
  readonly #deps: UpstreamDeps;
  readonly #breakers: Breakers;
  readonly #holds: Holds;
  readonly #connection: SharedConnection;
  readonly #stop = new AbortController();
  #inFlight = 0;
  /** Era of the latest connection. */
  #era: Era | undefined;
  #renewedAt = Number.NEGATIVE_INFINITY;
  #greeting: Pick<UpstreamStatus, 'protocol' | 'implementation'> = { protocol: undefined, implementation: undefined };
  readonly #discovery: Discovery;

  constructor(server: ToolServer, deps: UpstreamDeps) {
    this.server = server;
    this.#deps = deps;
    this.#breakers = new Breakers(deps, server.name);
    this.#holds = new Holds(deps);
    const stop = this.#stop.signal;
    this.#discovery = new Discovery(deps, server, {
      stop,
      request: (work) => this.request('lists', stop, work),
    });
    this.#connection = new SharedConnection((onEnd) => this.#connect(this.#connectionEvents(onEnd)));
    this.#discovery.start();
  }

  /** @param onEnd called when the connection has ended by itself */
  #connectionEvents(onEnd: () => void): ConnectionDeps {
    const { clock, logger } = this.#deps;
    const onFlood = () =>
      logger.warn({ server: this.server.name }, 'upstream server exceeded the message rate, closing its connection');
    const onClose = () => {
      onEnd();
      // No changes are reported without a connection. The reading that this triggers opens a new connection.
      this.#discovery.onChange();
    };
    const onChange = () => this.#discovery.onChange();
    const onOmitted = (row: OmittedRow) => this.#discovery.onOmitted(row);
    return { clock, logger, onChange, onFlood, onClose, onOmitted };
  }

  async #connect(deps: ConnectionDeps): Promise<Connection> {
    try {
      const connection = await connect(this.server, deps, { signal: this.#stop.signal, known: this.#era });
      const { client } = connection;
      this.#era = client.getProtocolEra();
      const { name, version } = client.getServerVersion() ?? { name: 'unknown', version: 'unknown' };
      this.#greeting = { protocol: client.getNegotiatedProtocolVersion(), implementation: { name, version } };
      return connection;
    } catch (error) {
      // The server may have another version by now.
      this.#era = undefined;
      throw error;
    }
  }

  /** Result of the latest successful reading. */
  get capabilities(): UpstreamCapabilities {
    return this.#discovery.capabilities;
  }

  get status(): UpstreamStatus {
    return {
      ...this.#discovery.status,
      ...this.#greeting,
      breakers: this.#breakers.states,
      limitedMs: this.#holds.serverMs,
    };
  }

  /** @throws UpstreamFault, UpstreamBusy, UpstreamRefusal, MissingCapability, the reason of the signal */
  callTool(call: UpstreamCall): Promise<CallToolResult | InputRequiredAnswer> {
    const { tool, args, callId, userId, signal, onProgress, input } = call;
    const repeatable = this.capabilities.tools.get(tool)?.repeatable ?? false;
    const traits = { signal, input, userId, repeatable };
    return this.requestWithInput('tools/call', traits, async (client, { params, options }) => {
      const { traceParent: traceparent } = this.#deps.tracing;
      const trace = traceparent === undefined ? {} : { traceparent };
      const _meta = { ...params._meta, 'tollgate/toolCallId': callId, ...trace };
      const progress = onProgress ? { onprogress: onProgress } : {};
      const request = { name: tool, arguments: { ...args }, ...params, _meta };
      const before = this.capabilities.tools.get(tool)?.resultProblem;
      const result = this.capabilities.tools.get(tool)?.isTask
        ? await callAsTask(client, request, { clock: this.#deps.clock, options: { ...options, ...progress } })
        : await client.callTool(request, { ...options, ...progress });
      const unchecked = result.isError || (options.allowInputRequired && isInputRequired(result));
      const problem = unchecked ? undefined : this.#resultProblem(tool, result, before);
      if (problem !== undefined) throw new UnusableResult(`The result of the tool ${problem}.`);
      return result;
    });
  }

  /**
   * Sends a request that the server may answer with input requests.
   * @throws UpstreamFault, UpstreamBusy, UpstreamRefusal, MissingCapability, the reason of the signal
   */
  requestWithInput<T extends object>(
    operation: Operation,
    {
      signal,
      input,
      ...traits
    }: { readonly signal: AbortSignal; readonly input?: InputExchange | undefined } & Partial<RequestTraits>,
    work: (client: Client, exchange: ExchangeOptions) => Promise<T>,
  ): Promise<T | InputRequiredAnswer> {
    const send = async (client: Client, options: RequestOptions) => {
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
    };
    return this.request(operation, signal, send, { repeatable: true, ...traits });
  }

  /**
   * Sends a request within the concurrency limit, circuit breaker and timeout of the server.
   * @throws UpstreamFault, UpstreamBusy, UpstreamRefusal, the reason of the signal
   */
  async request<T>(
    operation: Operation,
    signal: AbortSignal,
    work: (client: Client, options: RequestOptions) => Promise<T>,
    traits: RequestTraits = { repeatable: true },
  ): Promise<T> {
    const { clock, metrics } = this.#deps;
    const server = this.server.name;
    const startedAt = clock.now();
    let result = 'ok';
    try {
      const answer = await this.#admitted(operation, traits, () => this.#attempt(signal, work, traits));
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
    await this.#discovery.ended;
  }

  async #admitted<T>(operation: Operation, { userId }: RequestTraits, attempt: () => Promise<T>): Promise<T> {
    // Lists are read one at a time and must not compete with calls.
    const counts = operation !== 'lists';
    this.#holds.check(userId);
    if (counts && this.#inFlight >= this.server.concurrency) throw new UpstreamBusy('concurrency');
    if (counts) this.#inFlight += 1;
    try {
      return await this.#breakers.run(operation, attempt);
    } catch (error) {
      if (error instanceof RateLimited) this.#holds.add(error, userId);
      throw error;
    } finally {
      if (counts) this.#inFlight -= 1;
    }
  }

  #attempt<T>(
    callerSignal: AbortSignal,
    work: (client: Client, options: RequestOptions) => Promise<T>,
    { repeatable }: RequestTraits,
  ): Promise<T> {
    const { timeoutMs } = this.server;
    const signal = AbortSignal.any([callerSignal, this.#stop.signal]);
    const timeoutError = () => new UpstreamFault('timeout', `no answer within ${timeoutMs} ms`);
    return withDeadline({ clock: this.#deps.clock, timeoutMs, timeoutError, signal }, async (expired) => {
      const options = { signal: expired, timeout: timeoutMs + SDK_MARGIN_MS };
      try {
        return await this.#once(options, work);
      } catch (error) {
        if (!(error instanceof SessionLost && (repeatable || error.refusedUnread))) throw error;
        return this.#once(options, work);
      }
    });
  }

  #once<T>(
    options: RequestOptions & { readonly signal: AbortSignal },
    work: (client: Client, options: RequestOptions) => Promise<T>,
  ): Promise<T> {
    const { signal } = options;
    return this.#connection.use(async (client) => {
      // The request was not sent. A connection that took longer than the request may wait is not at fault.
      if (signal.aborted) throw new Error('the request ended while the connection was opened');
      try {
        return await work(client, options);
      } catch (thrown) {
        throw signal.aborted ? signal.reason : this.#renewal(errorOf(thrown));
      }
    });
  }

  /** Converts an error whose words say that the session is unknown; the connection is then replaced. */
  #renewal(error: Error): Error {
    const { clock } = this.#deps;
    if (!(error instanceof UpstreamRefusal) || error instanceof SessionLost || !saysSessionLost(error)) return error;
    if (this.server.address.kind !== 'http' || this.#era !== 'legacy') return error;
    if (clock.now() - this.#renewedAt < RENEWAL_MS) return error;
    this.#renewedAt = clock.now();
    return new SessionLost(false, error.message);
  }

  /**
   * Checks the structured content of a result.
   * @param before the check at the start of the call. If the server has changed its list since, a result that is valid
   *   by either check is accepted.
   */
  #resultProblem(tool: string, { structuredContent }: CallToolResult, before: ResultCheck): string | undefined {
    const check = this.capabilities.tools.get(tool)?.resultProblem;
    if (!check || !before) return undefined;
    if (check !== before && structuredContent !== undefined && before(structuredContent) === undefined)
      return undefined;
    return structuredContent === undefined ? 'has no structured content' : check(structuredContent);
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
