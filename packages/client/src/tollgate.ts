import type { BackoffOptions } from './backoff.ts';
import { type Clock, systemClock } from './clock.ts';
import { Connection, type ConnectionState } from './connection.ts';
import { Emitter } from './emitter.ts';
import { errorFromFields, TollgateError } from './errors.ts';
import type {
  DurableEvent,
  Identity,
  InputAnswer,
  RunEvent,
  ThreadMessage,
  ThreadSummary,
  ToolDescription,
  ToolResult,
} from './events.ts';
import { Requests, type RequestType } from './requests.ts';
import { Run, type RunAccepted, type RunStatus } from './run.ts';
import { type PositionStorage, StreamPosition } from './stream-position.ts';
import type { GetToken } from './token-source.ts';
import { sharedTransport } from './transports/shared.ts';
import { sseTransport } from './transports/sse.ts';
import type { Fields, OpenTransport } from './transports/transport.ts';
import { type WebSocketClass, webSocketTransport } from './transports/websocket.ts';
import { onWake } from './wake.ts';

export interface TollgateOptions {
  /** URL of the gateway or of its load balancer, `https://…`. */
  readonly url: string;
  /** Called for the first connection, and whenever the cached token has expired or is refused. */
  readonly getToken: GetToken;
  /** Default: `websocket`. `sse` works where proxies allow no WebSocket. See `socketIoTransport` for Socket.IO. */
  readonly transport?: 'websocket' | 'sse' | OpenTransport;
  /** A WebSocket class where there is no global one (Node 20): that of `ws`. */
  readonly WebSocket?: WebSocketClass;
  /** Keeps the position in the event log across page loads, for example `sessionStorage`. */
  readonly storage?: PositionStorage;
  /** Key in `storage`. Use one key per user. Default `tollgate.position`. */
  readonly storageKey?: string;
  /**
   * Shares one connection among the tabs of a browser: three tabs count as one in the plan's cap. With access tokens
   * that are no JWTs, give the user's id instead of `true`. Default false.
   */
  readonly shareTabs?: boolean | string;
  readonly backoff?: BackoffOptions;
  /** Maximum time from a request to its answer, reconnects included, in milliseconds. Default 60,000. */
  readonly requestTimeoutMs?: number;
  /** Longest `retry_after_ms` that a request waits for by itself, in milliseconds. Default 10,000. */
  readonly maxRetryAfterMs?: number;
  /** Maximum number of unread events per run. Default 10,000. */
  readonly maxQueuedEvents?: number;
  /** For tests. */
  readonly clock?: Clock;
  /** For tests: returns a number from 0 to 1. */
  readonly random?: () => number;
}

export interface TollgateEvents {
  state: ConnectionState;
  /** After each welcome and each change of the plan. */
  identity: Identity;
  /** Every durable event of the user, once and in order, those of other tabs and devices included. */
  event: DurableEvent;
  /** A message that is not durable and answers no request, such as one that a backend publishes to the user. */
  notice: { readonly type: string; readonly fields: Fields };
  /** The gateway has refreshed the access token. */
  token: string;
  /** The same with the next refresh token: store it, because the earlier one is used up. */
  tokens: { readonly token: string; readonly refreshToken: string };
  /** Events are no longer in the log; the reason is `trimmed` or `epoch_changed`. */
  lost: string;
  /** A failure after which the client tries again, or the one with which it has stopped. */
  error: TollgateError;
}

export interface RunOptions {
  readonly agent?: string;
  readonly thread?: string;
  /** Cancels the run. */
  readonly signal?: AbortSignal;
  /** The same id starts one run within 24 hours. Default: a random one. */
  readonly requestId?: string;
}

export interface ToolCallOptions {
  /** The same key is executed and charged once within 24 hours. Default: a random one, so retries are safe. */
  readonly idempotencyKey?: string;
  /** Stops waiting. The tool may still be executed and charged. */
  readonly signal?: AbortSignal;
}

export interface HistoryOptions {
  readonly before?: string;
  /** 1 to 100. Default 50. */
  readonly limit?: number;
}

/** The connection of one user to a Tollgate gateway. It connects at the first use. */
export class Tollgate {
  readonly #connection: Connection;
  readonly #requests: Requests;
  readonly #events = new Emitter<TollgateEvents>();
  readonly #runs = new Map<string, Run>();
  readonly #maxQueuedEvents: number;
  #stopWake: (() => void) | undefined;
  #identity: Identity | undefined;
  /** Why there is no connection. */
  #problem: TollgateError | undefined;

  /** The user's threads. */
  readonly threads = {
    /** The last changed thread first. */
    list: async (): Promise<readonly ThreadSummary[]> => {
      return (await this.#request('threads_list', {})).threads as readonly ThreadSummary[];
    },
    /** A page of messages, newest first. Pass `before` to get the next page; it is null on the last one. */
    history: async (threadId: string, options: HistoryOptions = {}) => {
      const fields = { thread_id: threadId, before: options.before, limit: options.limit };
      const { messages, before } = await this.#request('thread_history', fields);
      return { messages: messages as readonly ThreadMessage[], before: before as string | null };
    },
  };

  constructor(options: TollgateOptions) {
    const { clock = systemClock, random = Math.random } = options;
    this.#maxQueuedEvents = options.maxQueuedEvents ?? 10_000;
    this.#requests = new Requests(
      { clock, send: (type, fields) => this.#connection.send(type, fields), problem: () => this.#problem },
      { timeoutMs: options.requestTimeoutMs ?? 60_000, maxRetryAfterMs: options.maxRetryAfterMs ?? 10_000 },
    );
    this.#connection = new Connection(
      {
        url: options.url,
        open: transportOf(options),
        getToken: options.getToken,
        position: new StreamPosition(options.storage, options.storageKey ?? 'tollgate.position'),
        backoff: options.backoff ?? {},
        clock,
        random,
      },
      {
        event: (type, fields) => this.#event({ type, ...fields } as DurableEvent),
        message: (type, fields) => this.#message(type, fields),
        connected: (identity) => {
          this.#identity = identity;
          this.#problem = undefined;
          // First what waited: a request of a listener is new, and must not be sent twice.
          this.#requests.connected();
          this.#events.emit('identity', identity);
        },
        state: (state) => this.#events.emit('state', state),
        failed: (error) => {
          if (this.state !== 'connected') this.#problem = error;
          this.#events.emit('error', error);
        },
        stopped: (error) => this.#stopped(error),
        lost: (reason) => this.#lost(reason),
        token: (token, refreshToken) => {
          this.#events.emit('token', token);
          if (refreshToken !== undefined) this.#events.emit('tokens', { token, refreshToken });
        },
      },
    );
  }

  get state(): ConnectionState {
    return this.#connection.state;
  }

  /** The user, as of the last welcome; undefined before the first one. */
  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** Returns a function that removes the listener. */
  on<Name extends keyof TollgateEvents>(name: Name, listener: (value: TollgateEvents[Name]) => void): () => void {
    return this.#events.on(name, listener);
  }

  /** Connects without a request, and also after the client has stopped. */
  connect(): void {
    this.#stopWake ??= onWake(
      () => this.#connection.wake(),
      () => this.#connection.savePosition(),
    );
    this.#connection.connect();
  }

  /** Starts a run. Iterate over it for its events, or await `result()`. */
  run(message: string, { agent, thread, signal, requestId = newId() }: RunOptions = {}): Run {
    const accepted = this.#request('agent_request', { message, agent, thread_id: thread }, { requestId, signal }).then(
      ({ run_id, thread_id }): RunAccepted => ({ runId: String(run_id), threadId: String(thread_id) }),
    );
    const run = new Run(requestId, accepted, { maxQueued: this.#maxQueuedEvents, cancel: (id) => this.cancel(id) });
    this.#runs.set(requestId, run);
    const cancel = () => void run.cancel().catch((error: unknown) => run.fail(error));
    signal?.addEventListener('abort', cancel, { once: true });
    void run
      .result()
      .catch(() => {})
      .then(() => {
        this.#runs.delete(requestId);
        signal?.removeEventListener('abort', cancel);
      });
    return run;
  }

  /** Cancels a run, for example one that another tab started. */
  async cancel(runId: string): Promise<void> {
    await this.#request('agent_cancel', { run_id: runId });
  }

  /** What became of a run that was accepted within the last 24 hours. */
  async runStatus(runId: string): Promise<RunStatus> {
    return (await this.#request('run_status', { run_id: runId })) as unknown as RunStatus;
  }

  /**
   * Answers what a run asks. The first answer counts; the same one again is `repeated`.
   * @param request an event `input_requested`, or the ids of one of `input_requests`
   * @throws TollgateError INPUT_ALREADY_ANSWERED, INPUT_EXPIRED, FORMAT_ERROR for content that does not fit, …
   */
  async respond(
    { run_id, input_id }: { readonly run_id: string | null; readonly input_id: string },
    { action, content }: InputAnswer,
  ): Promise<{ readonly repeated: boolean }> {
    const { repeated } = await this.#request('input_response', { run_id, input_id, action, content });
    return { repeated: repeated === true };
  }

  /**
   * Calls a tool outside a run.
   * @returns the outcome, also of a tool that failed (`success: false`)
   * @throws TollgateError of a refused call, which is not charged: QUOTA_EXCEEDED, PERMISSION_DENIED, …
   */
  async callTool(name: string, args: Fields = {}, options: ToolCallOptions = {}): Promise<ToolResult> {
    const fields = { tool: name, arguments: args, idempotency_key: options.idempotencyKey ?? newId() };
    return (await this.#request('tool_call', fields, { signal: options.signal })) as unknown as ToolResult;
  }

  /** The tools that the user's plan allows. */
  async tools(): Promise<readonly ToolDescription[]> {
    return (await this.#request('tools_list', {})).tools as readonly ToolDescription[];
  }

  /** The user's limits and what is used of them. */
  usage(): Promise<Fields> {
    return this.#request('usage_summary', {});
  }

  /** Closes the connection for good. Runs continue in the gateway; unanswered requests reject. */
  close(): void {
    this.#stopWake?.();
    this.#stopWake = undefined;
    this.#connection.close();
  }

  #request(
    type: RequestType,
    fields: Fields,
    { requestId = newId(), signal }: { requestId?: string; signal?: AbortSignal | undefined } = {},
  ): Promise<Fields> {
    this.connect();
    return this.#requests.send(type, withoutUndefined(fields), requestId, { signal });
  }

  #event(event: DurableEvent): void {
    const run = typeof event.request_id === 'string' ? this.#runs.get(event.request_id) : undefined;
    run?.push(event as RunEvent);
    this.#events.emit('event', event);
  }

  #message(type: string, fields: Fields): void {
    if (this.#requests.receive(type, fields)) return;
    if (type === 'plan_changed' && this.#identity) {
      this.#identity = { ...this.#identity, ...(fields as Pick<Identity, 'plan' | 'permissions' | 'limits'>) };
      this.#events.emit('identity', this.#identity);
    } else if (type === 'error') this.#events.emit('error', errorFromFields(fields));
    else this.#events.emit('notice', { type, fields });
  }

  #lost(reason: string): void {
    const ask = (runId: string) => this.runStatus(runId);
    for (const run of [...this.#runs.values()]) void run.lost(reason, ask);
    this.#events.emit('lost', reason);
  }

  #stopped(error: TollgateError): void {
    this.#requests.rejectAll(error);
    for (const run of [...this.#runs.values()]) run.fail(error);
    this.#events.emit('error', error);
  }
}

/** Browsers have `crypto.randomUUID` only on pages that they fetched over HTTPS or from localhost. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function withoutUndefined(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** The class is looked up when the client connects: a server that only renders has no WebSocket. */
function transportOf({ transport, shareTabs, WebSocket }: TollgateOptions): OpenTransport {
  const webSocket: OpenTransport = (...args) => webSocketTransport(webSocketClass(WebSocket))(...args);
  const open = typeof transport === 'function' ? transport : transport === 'sse' ? sseTransport() : webSocket;
  if (shareTabs === undefined || shareTabs === false) return open;
  return sharedTransport(open, shareTabs === true ? undefined : shareTabs);
}

function webSocketClass(given: WebSocketClass | undefined): WebSocketClass {
  const found = given ?? (globalThis as { WebSocket?: WebSocketClass }).WebSocket;
  if (found) return found;
  throw new TollgateError('NO_WEBSOCKET', {
    message: 'There is no global WebSocket. Pass one: new Tollgate({ WebSocket: (await import("ws")).WebSocket }).',
    retryable: false,
  });
}
