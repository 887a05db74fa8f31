import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { SerialQueue } from '../lib/serial-queue.ts';
import type { Span, TraceParent, Tracing } from '../lib/tracing.ts';
import { consumeMessage, type MessageLimitDeps, rejectIfBlocked } from '../limits/message-limit.ts';
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
  /** Begins what is spoken beside our own messages on a JSON-RPC connection. */
  readonly createRpcDispatcher: (ctx: ConnectionContext, sendFrame: (frame: string) => void) => RpcDispatcher;
  readonly metrics: Pick<Metrics, 'messages' | 'limitDecisions'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/** The connection as its inbox sees it. */
export interface DispatchedConnection {
  readonly context: ConnectionContext;
  readonly closed: boolean;
  readonly endpoint: string;
  /** Undefined before authentication. */
  readonly user: { readonly userId: string; readonly plan: string } | undefined;
  sendReply(reply: NonNullable<Reply>, replyTo: ReplyTo): void;
  /** Sends a frame that is finished. */
  sendFrame(frame: string): void;
  sendError(error: TollgateError, replyTo: ReplyTo): void;
  close(error: TollgateError): void;
  /** Live events wait while `work` runs. */
  withEventsPaused<T>(work: () => Promise<T>): Promise<T>;
  /** A message came that is no `resume`: nobody waits for one any more. */
  onFirstMessage(): void;
}

const BAD_FRAME_CODES: readonly ErrorCode[] = [
  'JSON_ERROR',
  'INVALID_MESSAGE',
  'UNKNOWN_MESSAGE_TYPE',
  'FORMAT_ERROR',
  'MESSAGE_TOO_LARGE',
];
/** Messages that may come before a `resume` without giving up the chance of one. */
const BEFORE_RESUME: readonly ClientMessageType[] = ['resume', 'ping', 'heartbeat', 'auth', 'service_auth'];
/** How long a message that found the queue full should wait: the time the messages before it are likely to take. */
const QUEUE_FULL_RETRY_MS = 1_000;
/** Messages that say only that somebody is there: a trace of each would bury the others. */
const UNTRACED: readonly ClientMessageType[] = ['ping', 'heartbeat', 'typing'];
/** How messages of the other protocol are counted: its methods are the client's to name. */
const RPC_LABEL = 'mcp';
const BASIC_ENDPOINT =
  'This is the basic WebSocket endpoint: authenticate first, with {"type":"auth","token":"…"}, or connect to /ws/secure.';

/** What a client sends: in order, within its limits, each message answered once, and no error ever left unanswered. */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #owner: DispatchedConnection;
  readonly #queue: SerialQueue;
  readonly #rpcDispatcher: RpcDispatcher | undefined;
  /** Of the opening: a connection lives for hours, so that each message has a trace of its own, which names this one. */
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
    // What is thrown here is no answer to a message: the connection cannot go on as if nothing had happened.
    this.#queue = new SerialQueue(MESSAGE_QUEUE_LIMIT, (error) => owner.close(toTollgateError(error)));
  }

  /** Something that the client sent has not been answered yet. */
  get busy(): boolean {
    return this.#outOfOrder > 0 || this.#queue.length > 0;
  }

  /** The opening, and what came of it: the first step. @param step returns the error that ended it, if one did */
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

  /** A step of the opening, before any message is looked at: what comes meanwhile waits. */
  enqueueFirst(step: () => Promise<void>): Promise<void> {
    this.#queue.add(step);
    return this.#queue.idle();
  }

  /** A frame of this size came in, whatever is in it; the message of it, if there is one, follows. */
  countBytes(bytes: number): void {
    if (this.#owner.user) return;
    this.#unauthenticatedBytes += bytes;
    if (this.#unauthenticatedBytes > UNAUTHENTICATED_BYTES) this.#owner.close(new TollgateError('NO_TOKEN'));
  }

  dispatch(message: IncomingMessage): void {
    if (this.#queue.add(() => this.#handleInOrder(message))) return;
    this.#owner.sendError(new TollgateError('RATE_LIMITED', { retryAfterMs: QUEUE_FULL_RETRY_MS }), message.replyTo);
  }

  /** A frame that could not be understood; answered after what came before it. */
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

  /** Before authentication few message types are understood, and few messages read at all. */
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
    const { allowed } = await this.#checkLimits(handler);
    const answer = async () => {
      const reply = await handler.handle(this.#owner.context, parsed.data as never, allowed);
      if (reply && 'later' in reply) {
        const answered = reply.later.then((later) => this.#reply(later, replyTo));
        const sent = this.#answerLater(answered, { type, fields: raw, replyTo });
        span?.until(sent);
      } else this.#reply(reply, replyTo);
    };
    await (handler.pausesEvents ? this.#owner.withEventsPaused(answer) : answer());
  }

  /** A message of the other protocol: within the same limits, and answered when its answer is there. */
  async #dispatchRpc(rpcDispatcher: RpcDispatcher, { name, fields, replyTo }: IncomingMessage): Promise<void> {
    const type = RPC_LABEL;
    const id = replyTo && 'rpcId' in replyTo ? replyTo.rpcId : undefined;
    const message = { method: name, params: fields };
    this.#owner.onFirstMessage();
    rpcDispatcher.observe({ id, ...message });
    try {
      const { allowed } = await this.#checkLimits(
        id === undefined ? {} : { startsBeforeLimit: true, outOfOrder: true },
      );
      this.#deps.metrics.messages.inc({ type, result: 'ok' });
      this.#badFramesInARow = 0;
      // A notification is never answered, and has been heard.
      if (id === undefined) return;
      const answered = rpcDispatcher.answer({ id, ...message }, allowed).then((frame) => this.#sendFrame(frame));
      void this.#answerLater(answered, { type, fields, replyTo });
    } catch (thrown) {
      const error = toTollgateError(thrown);
      if (id === undefined) this.#deps.metrics.messages.inc({ type, result: error.code });
      else this.#fail(error, type, replyTo);
    }
  }

  /**
   * Asks the limits of a message. `allowed` settles when the message limit has answered.
   * @throws TollgateError RATE_LIMITED
   */
  async #checkLimits({
    startsBeforeLimit,
    outOfOrder,
  }: Pick<Handler<ClientMessageType>, 'startsBeforeLimit' | 'outOfOrder'>) {
    const { user } = this.#owner;
    if (user) rejectIfBlocked(this.#deps, user);
    const allowed = user ? consumeMessage(this.#deps, user) : Promise.resolve();
    // Whoever waits for it sees the refusal; this keeps one that nobody came to wait for from being unhandled.
    allowed.catch(() => undefined);
    const full = outOfOrder && this.#outOfOrder >= OUT_OF_ORDER_LIMIT;
    if (!startsBeforeLimit || full) await allowed;
    if (full) {
      const text = `Rate limit exceeded: ${OUT_OF_ORDER_LIMIT} such messages of this connection are under way.`;
      throw new TollgateError('RATE_LIMITED', { text, retryAfterMs: QUEUE_FULL_RETRY_MS });
    }
    // Not the promise itself: `await` would wait for it.
    return { allowed };
  }

  #sendFrame(frame: string | undefined): void {
    if (frame !== undefined && !this.#owner.closed) this.#owner.sendFrame(frame);
  }

  #reply(reply: Reply, replyTo: ReplyTo): void {
    if (reply && !this.#owner.closed) this.#owner.sendReply(reply, replyTo);
  }

  /** The message began in its turn; its answer is sent when it is there, while others are answered. */
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
    this.#deps.logger.error({ ...logContext, type, err: cause }, 'a message failed');
  }

  /** Who speaks, for whoever reads the trace; the user by its hash only. */
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

/** A type is repeated to the client only as far as one could be meant: what stands there may be anything. */
function truncatedName(name: string): string {
  return name.slice(0, 64);
}

/** A client that sent several requests finds the one that failed. */
function withRequestId(error: TollgateError, fields: Readonly<Record<string, unknown>>): TollgateError {
  const requestId = fields.request_id;
  if (typeof requestId !== 'string' || requestId.length > 128) return error;
  return error.with({ request_id: requestId });
}
