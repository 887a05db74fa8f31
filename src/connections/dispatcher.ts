import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { SerialQueue } from '../lib/serial-queue.ts';
import type { Span, TraceParent, Tracing } from '../lib/tracing.ts';
import {
  countMessage,
  type MessageLimit,
  type MessageLimitDeps,
  NO_MESSAGE_LIMIT,
  rejectIfBlocked,
} from '../limits/message-limit.ts';
import type { IncomingMessage, ReplyTo } from '../protocol/dialects.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import { formatError } from '../protocol/format-error.ts';
import { CLIENT_MESSAGES, type ClientMessageType, clientMessageType, type Fields } from '../protocol/messages.ts';
import type { ConnectionContext, Handler, Handlers, Reply } from './handlers.ts';
import {
  BAD_FRAMES_LIMIT,
  MESSAGE_QUEUE_LIMIT,
  OUT_OF_ORDER_LIMIT,
  UNAUTHENTICATED_BYTES,
  UNAUTHENTICATED_MESSAGES,
} from './limits.ts';
import type { RpcDispatcher } from './rpc-dispatcher.ts';

export interface DispatcherDeps extends MessageLimitDeps {
  readonly handlers: Handlers;
  /** Creates the handler of the MCP messages on a JSON-RPC connection. */
  readonly createRpcDispatcher: (ctx: ConnectionContext, sendFrame: (frame: string) => void) => RpcDispatcher;
  readonly metrics: Pick<Metrics, 'messages' | 'limitDecisions'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/** What the dispatcher needs from its connection. */
export interface DispatchedConnection {
  readonly context: ConnectionContext;
  readonly closed: boolean;
  readonly endpoint: string;
  /** Undefined before authentication. */
  readonly user: { readonly userId: string; readonly plan: string } | undefined;
  sendReply(reply: NonNullable<Reply>, replyTo: ReplyTo): void;
  /** Sends an already encoded frame. */
  sendFrame(frame: string): void;
  sendError(error: TollgateError, replyTo: ReplyTo): void;
  close(error: TollgateError): void;
  /** Pauses live events while `work` runs. */
  withEventsPaused<T>(work: () => Promise<T>): Promise<T>;
  /** Called at the first message that rules out a later `resume`; ends the resume grace. */
  onFirstMessage(): void;
}

const BAD_FRAME_CODES: readonly ErrorCode[] = [
  'JSON_ERROR',
  'INVALID_MESSAGE',
  'UNKNOWN_MESSAGE_TYPE',
  'FORMAT_ERROR',
  'MESSAGE_TOO_LARGE',
];
/** Messages that may precede a `resume` without ending the resume grace. */
const BEFORE_RESUME: readonly ClientMessageType[] = ['resume', 'ping', 'heartbeat', 'auth', 'service_auth'];
/** Retry delay when the queue is full: the time that the messages ahead are likely to take. */
const QUEUE_FULL_RETRY_MS = 1_000;
/** Presence messages without a trace: their number would bury the traces of other messages. */
const UNTRACED: readonly ClientMessageType[] = ['ping', 'heartbeat', 'typing'];
/** Metric label of all MCP messages. The client chooses method names, so they must not become label values. */
const RPC_LABEL = 'mcp';
const BASIC_ENDPOINT =
  'This is the basic WebSocket endpoint: authenticate first, with {"type":"auth","token":"…"}, or connect to /ws/secure.';

/**
 * Processes the messages of one connection in order and within its limits. Each message gets one answer, and every
 * error is sent to the client.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #owner: DispatchedConnection;
  readonly #queue: SerialQueue;
  readonly #rpcDispatcher: RpcDispatcher | undefined;
  /** Trace of the handshake. A connection lives for hours: each message has its own trace, linked to this one. */
  #handshakeTrace: TraceParent | undefined;
  #outOfOrder = 0;
  #badFramesInARow = 0;
  #unauthenticatedMessages = 0;
  #unauthenticatedBytes = 0;

  constructor(deps: DispatcherDeps, owner: DispatchedConnection) {
    this.#deps = deps;
    this.#owner = owner;
    this.#rpcDispatcher =
      owner.context.transportName === 'mcp'
        ? deps.createRpcDispatcher(owner.context, (frame) => this.#sendFrame(frame))
        : undefined;
    // Handlers report their errors to the client. Any other error leaves the connection in an unknown state.
    this.#queue = new SerialQueue(MESSAGE_QUEUE_LIMIT, (error) => owner.close(toTollgateError(error)));
  }

  /** Whether a message of the client is still unanswered. */
  get busy(): boolean {
    return this.#outOfOrder > 0 || this.#queue.length > 0;
  }

  /** Runs the handshake as the first step, in its own trace. @param step returns the error that ended it, if any */
  runHandshake(step: () => Promise<TollgateError | undefined>): Promise<void> {
    const { tracing } = this.#deps;
    return this.enqueueFirst(() =>
      tracing.root(`handshake ${this.#owner.endpoint}`, { kind: 'server' }, async (span) => {
        this.#handshakeTrace = tracing.traceParent;
        const error = await step();
        if (error) tracing.failed(error);
        this.#describeSpan(span);
      }),
    );
  }

  /** Queues a step of the handshake ahead of all messages. Resolves when the queue is empty. */
  enqueueFirst(step: () => Promise<void>): Promise<void> {
    this.#queue.add(step);
    return this.#queue.idle();
  }

  /** Counts a received frame towards the bound before authentication. Called before the frame is parsed. */
  countBytes(bytes: number): void {
    if (this.#owner.user) return;
    this.#unauthenticatedBytes += bytes;
    if (this.#unauthenticatedBytes > UNAUTHENTICATED_BYTES) this.#owner.close(new TollgateError('NO_TOKEN'));
  }

  dispatch(message: IncomingMessage): void {
    if (this.#queue.add(() => this.#handleInOrder(message))) return;
    this.#owner.sendError(new TollgateError('RATE_LIMITED', { retryAfterMs: QUEUE_FULL_RETRY_MS }), message.replyTo);
  }

  /** Answers an unreadable frame with an error, after the answers to earlier messages. */
  reject(error: TollgateError, replyTo: ReplyTo): void {
    this.#countUnauthenticated();
    const queued = this.#queue.add(async () => this.#fail(error, 'unknown', replyTo));
    if (!queued) this.#fail(error, 'unknown', replyTo);
  }

  async #handleInOrder(message: IncomingMessage): Promise<void> {
    if (this.#owner.closed) return;
    const { name } = message;
    if (this.#owner.user && this.#rpcDispatcher?.handles(name)) return this.#dispatchRpc(this.#rpcDispatcher, message);
    const type = clientMessageType(name);
    if (type !== undefined && UNTRACED.includes(type)) return this.#handle(type, message);
    const options = { kind: 'server', links: [this.#handshakeTrace] } as const;
    await this.#deps.tracing.root(`message ${type ?? 'unknown'}`, options, (span) => {
      this.#describeSpan(span);
      return this.#handle(type, message, span);
    });
  }

  async #handle(type: ClientMessageType | undefined, message: IncomingMessage, span?: Span): Promise<void> {
    const { name, fields, replyTo } = message;
    try {
      if (!this.#isAllowed(type)) {
        this.#owner.sendReply(
          { type: 'info', fields: { message: BASIC_ENDPOINT, received_type: truncatedName(name) } },
          replyTo,
        );
        return;
      }
      if (type === undefined)
        throw new TollgateError('UNKNOWN_MESSAGE_TYPE', { fields: { received_type: truncatedName(name) } });
      if (!BEFORE_RESUME.includes(type)) this.#owner.onFirstMessage();
      await this.#run(type, message, span);
      this.#deps.metrics.messages.inc({ type, result: 'ok' });
      this.#badFramesInARow = 0;
    } catch (thrown) {
      this.#fail(withRequestId(toTollgateError(thrown), fields), type ?? 'unknown', replyTo);
    }
  }

  /** Before authentication, allows few message types and counts each message towards `UNAUTHENTICATED_MESSAGES`. */
  #isAllowed(type: ClientMessageType | undefined): boolean {
    if (this.#owner.user) return true;
    this.#countUnauthenticated();
    return type !== undefined && CLIENT_MESSAGES[type].access === 'anyone';
  }

  #countUnauthenticated(): void {
    if (this.#owner.user) return;
    this.#unauthenticatedMessages += 1;
    if (this.#unauthenticatedMessages > UNAUTHENTICATED_MESSAGES) this.#owner.close(new TollgateError('NO_TOKEN'));
  }

  async #run(type: ClientMessageType, { fields: raw, replyTo }: IncomingMessage, span?: Span): Promise<void> {
    const parsed = CLIENT_MESSAGES[type].fields.safeParse(raw);
    if (!parsed.success) throw formatError(parsed.error);
    // The table pairs each type with its own fields; TypeScript cannot follow the pairing through a lookup.
    const handler = this.#deps.handlers[type] as Handler<ClientMessageType>;
    const limit = await this.#checkLimits(handler);
    const answer = async () => {
      const reply = await handler.handle(this.#owner.context, parsed.data as never, limit);
      if (reply && 'later' in reply) {
        const answered = reply.later.then((later) => this.#reply(later, replyTo));
        const sent = this.#answerLater(answered, { type, fields: raw, replyTo });
        span?.until(sent);
      } else this.#reply(reply, replyTo);
    };
    await (handler.pausesEvents ? this.#owner.withEventsPaused(answer) : answer());
  }

  /** Handles an MCP message within the same limits. Requests are answered out of order. */
  async #dispatchRpc(rpcDispatcher: RpcDispatcher, { name, fields, replyTo }: IncomingMessage): Promise<void> {
    const type = RPC_LABEL;
    const id = replyTo && 'rpcId' in replyTo ? replyTo.rpcId : undefined;
    const message = { method: name, params: fields };
    this.#owner.onFirstMessage();
    rpcDispatcher.observe({ id, ...message });
    try {
      const limit = await this.#checkLimits(id === undefined ? {} : { startsBeforeLimit: true, outOfOrder: true });
      this.#deps.metrics.messages.inc({ type, result: 'ok' });
      this.#badFramesInARow = 0;
      // A notification gets no answer, and `observe` has already processed it.
      if (id === undefined) return;
      const answered = rpcDispatcher.answer({ id, ...message }, limit).then((frame) => this.#sendFrame(frame));
      void this.#answerLater(answered, { type, fields, replyTo });
    } catch (thrown) {
      const error = toTollgateError(thrown);
      if (id === undefined) this.#deps.metrics.messages.inc({ type, result: error.code });
      else this.#fail(error, type, replyTo);
    }
  }

  /**
   * Checks the limits of a message. Waits for the message limiter, unless the handler starts before its decision.
   * @throws TollgateError RATE_LIMITED
   */
  async #checkLimits({
    startsBeforeLimit,
    outOfOrder,
  }: Pick<Handler<ClientMessageType>, 'startsBeforeLimit' | 'outOfOrder'>): Promise<MessageLimit> {
    const { user } = this.#owner;
    if (user) rejectIfBlocked(this.#deps, user);
    const limit = user ? countMessage(this.#deps, user) : NO_MESSAGE_LIMIT;
    const full = outOfOrder && this.#outOfOrder >= OUT_OF_ORDER_LIMIT;
    if (!startsBeforeLimit || full) await limit.allowed;
    if (full) {
      const text = `Rate limit exceeded: ${OUT_OF_ORDER_LIMIT} such messages of this connection are in flight.`;
      throw new TollgateError('RATE_LIMITED', { text, retryAfterMs: QUEUE_FULL_RETRY_MS });
    }
    return limit;
  }

  #sendFrame(frame: string | undefined): void {
    if (frame !== undefined && !this.#owner.closed) this.#owner.sendFrame(frame);
  }

  #reply(reply: Reply, replyTo: ReplyTo): void {
    if (reply && !this.#owner.closed) this.#owner.sendReply(reply, replyTo);
  }

  /** Sends the answer when it is ready, while later messages are processed. The message itself started in order. */
  #answerLater(answered: Promise<void>, message: { type: string; fields: Fields; replyTo: ReplyTo }): Promise<void> {
    const { type, fields, replyTo } = message;
    this.#outOfOrder += 1;
    return answered
      .catch((thrown) => this.#fail(withRequestId(toTollgateError(thrown), fields), type, replyTo))
      .finally(() => {
        this.#outOfOrder -= 1;
      });
  }

  #logFailure({ cause }: TollgateError, type: string): void {
    const { context, user } = this.#owner;
    const logContext = { connection_id: context.connectionId, ...(user ? { user: userHash(user.userId) } : {}) };
    this.#deps.logger.error({ ...logContext, type, err: cause }, 'message failed');
  }

  /** Adds connection, user and plan to a span. The user appears only as a hash. */
  #describeSpan(span: Span): void {
    if (!span.recording) return;
    const { context, endpoint, user } = this.#owner;
    span.set({
      'tollgate.endpoint': endpoint,
      'tollgate.connection.id': context.connectionId,
      ...(user ? { 'user.hash': userHash(user.userId), 'tollgate.plan': user.plan } : {}),
    });
  }

  #fail(error: TollgateError, type: string, replyTo: ReplyTo): void {
    this.#deps.tracing.failed(error);
    if (this.#owner.closed) return;
    this.#deps.metrics.messages.inc({ type, result: error.code });
    if (error.code === 'INTERNAL_ERROR') this.#logFailure(error, type);
    if (BAD_FRAME_CODES.includes(error.code)) this.#badFramesInARow += 1;
    if (this.#badFramesInARow >= BAD_FRAMES_LIMIT) this.#owner.close(error);
    else this.#owner.sendError(error, replyTo);
  }
}

/** Truncates an unknown message type for the error text, because the client may have sent any string. */
function truncatedName(name: string): string {
  return name.slice(0, 64);
}

/** Adds the `request_id` of the message, so that a client with several requests can tell which one failed. */
function withRequestId(error: TollgateError, fields: Readonly<Record<string, unknown>>): TollgateError {
  const requestId = fields.request_id;
  if (typeof requestId !== 'string' || requestId.length > 128) return error;
  return error.with({ request_id: requestId });
}
