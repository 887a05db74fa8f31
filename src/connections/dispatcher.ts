import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Span, Tracing } from '../lib/tracing.ts';
import {
  countMessage,
  type MessageLimit,
  type MessageLimitDeps,
  NO_MESSAGE_LIMIT,
  rejectIfBlocked,
} from '../limits/message-limit.ts';
import type { IncomingMessage, ReplyTo } from '../protocol/dialects.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import {
  type ClientMessageType,
  clientMessageType,
  type Fields,
  fieldsSchema,
  isOpenMessage,
  type UserOf,
} from '../protocol/messages.ts';
import { parseFields } from '../protocol/parse-fields.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import {
  type ConnectionContext,
  describeSpan,
  logContext,
  type Reply,
  type RpcDispatcher,
} from './connection-context.ts';
import type { Handler, Handlers } from './handlers.ts';
import { OUT_OF_ORDER_LIMIT } from './limits.ts';

export interface DispatcherDeps extends MessageLimitDeps {
  readonly handlers: Handlers;
  readonly metrics: Pick<Metrics, 'messages' | 'limitDecisions'>;
  readonly refusals: RefusalSink;
  readonly logger: Logger;
  readonly tracing: Tracing;
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
/** Retry delay above a limit of the connection: the time that the messages ahead are likely to take. */
const FULL_RETRY_MS = 1_000;
/** Presence messages without a trace: their number would bury the traces of other messages. */
const UNTRACED: readonly ClientMessageType[] = ['ping', 'heartbeat', 'typing'];
/** Metric label of all MCP messages. The client chooses method names, so they must not become label values. */
const RPC_LABEL = 'mcp';
const BASIC_ENDPOINT =
  'This is the basic WebSocket endpoint: authenticate first, with {"type":"auth","token":"…"}, or connect to /ws/secure.';

/**
 * Processes the messages of all connections of a node, each within the limits of its connection and user. Each message
 * gets one answer, and every error is sent to the client.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
  }

  /** Processes a message and answers it. Resolves when the next message of the connection may start. */
  async dispatch(connection: ConnectionContext, message: IncomingMessage): Promise<void> {
    if (connection.closed) return;
    const { identity, rpc } = connection;
    if (identity && rpc?.handles(message.name)) return this.#dispatchRpc(connection, { identity, rpc }, message);
    const type = clientMessageType(message.name);
    if (type !== undefined && UNTRACED.includes(type)) return this.#handle(connection, type, message);
    const options = { kind: 'server', links: [connection.handshakeTrace] } as const;
    await this.#deps.tracing.root(`message ${type ?? 'unknown'}`, options, (span) => {
      return this.#handle(connection, type, message, span);
    });
  }

  /** Answers an unreadable frame with an error. */
  reject(connection: ConnectionContext, error: TollgateError, replyTo: ReplyTo): void {
    this.#fail(connection, error, 'unknown', replyTo);
  }

  /** Answers a message for which the queue of its connection has no room. */
  refuse({ identity, writer }: ConnectionContext, { replyTo }: IncomingMessage): void {
    const error = new TollgateError('RATE_LIMITED', { retryAfterMs: FULL_RETRY_MS });
    if (identity) this.#deps.refusals.refused(identity.userId, error);
    writer.sendError(error, replyTo);
  }

  async #handle(
    connection: ConnectionContext,
    type: ClientMessageType | undefined,
    message: IncomingMessage,
    span?: Span,
  ): Promise<void> {
    if (span) describeSpan(span, connection);
    const { identity } = connection;
    try {
      if (!identity) {
        countUnauthenticated(connection);
        if (!isOpenMessage(type)) return sendReply(connection, basicEndpoint(message), message.replyTo);
        await this.#run(connection, type, undefined, message, span);
      } else {
        if (type === undefined) throw new TollgateError('UNKNOWN_MESSAGE_TYPE', { fields: receivedType(message) });
        if (!BEFORE_RESUME.includes(type)) connection.endResumeGrace();
        await this.#run(connection, type, identity, message, span);
      }
    } catch (thrown) {
      const error = withRequestId(toTollgateError(thrown), message.fields);
      this.#fail(connection, error, type ?? 'unknown', message.replyTo);
    }
  }

  async #run<T extends ClientMessageType>(
    connection: ConnectionContext,
    type: T,
    identity: UserOf<T>,
    { fields: raw, replyTo }: IncomingMessage,
    span: Span | undefined,
  ): Promise<void> {
    const parsed = parseFields(fieldsSchema(type), raw);
    const handler = this.#deps.handlers[type];
    const limit = await this.#checkLimits(connection, identity, handler);
    const unpause = handler.pausesEvents ? connection.pauseEvents() : undefined;
    try {
      const reply = await handler.handle({ connection, identity, limit }, parsed);
      if (reply && 'later' in reply) {
        const answered = reply.later.then((later) => sendReply(connection, later, replyTo));
        span?.until(this.#answerLater(connection, answered, { type, fields: raw, replyTo }));
      } else sendReply(connection, reply, replyTo);
    } finally {
      unpause?.();
    }
    this.#countOk(connection, type);
  }

  /** Handles an MCP message within the same limits. Requests are answered out of order. */
  async #dispatchRpc(
    connection: ConnectionContext,
    { identity, rpc }: { readonly identity: Identity; readonly rpc: RpcDispatcher },
    { name, fields, replyTo }: IncomingMessage,
  ): Promise<void> {
    const type = RPC_LABEL;
    const id = replyTo && 'rpcId' in replyTo ? replyTo.rpcId : undefined;
    const message = { method: name, params: fields };
    connection.endResumeGrace();
    rpc.observe({ id, ...message });
    try {
      const flags = id === undefined ? {} : ({ startsBeforeLimit: true, outOfOrder: true } as const);
      const limit = await this.#checkLimits(connection, identity, flags);
      this.#countOk(connection, type);
      // A notification gets no answer, and `observe` has already processed it.
      if (id === undefined) return;
      const answered = rpc.answer({ connection, identity, limit }, { id, ...message }).then((frame) => {
        if (frame !== undefined) connection.writer.sendFrame(frame);
      });
      void this.#answerLater(connection, answered, { type, fields, replyTo });
    } catch (thrown) {
      const error = toTollgateError(thrown);
      if (id === undefined) this.#deps.metrics.messages.inc({ type, result: error.code });
      else this.#fail(connection, error, type, replyTo);
    }
  }

  /**
   * Checks the limits of a message. Waits for the message limiter, unless the handler starts before its decision.
   * @throws TollgateError RATE_LIMITED
   */
  async #checkLimits(
    { counters }: ConnectionContext,
    identity: Identity | undefined,
    { startsBeforeLimit, outOfOrder }: Pick<Handler<ClientMessageType>, 'startsBeforeLimit' | 'outOfOrder'>,
  ): Promise<MessageLimit> {
    if (identity) rejectIfBlocked(this.#deps, identity);
    const limit = identity ? countMessage(this.#deps, identity) : NO_MESSAGE_LIMIT;
    const isFull = outOfOrder && counters.isFull;
    if (!startsBeforeLimit || isFull) await limit.allowed;
    if (isFull) {
      const text = `Rate limit exceeded: ${OUT_OF_ORDER_LIMIT} such messages of this connection are in flight.`;
      throw new TollgateError('RATE_LIMITED', { text, retryAfterMs: FULL_RETRY_MS });
    }
    return limit;
  }

  /** Sends the answer when it is ready, while later messages are processed. The message itself started in order. */
  #answerLater(
    connection: ConnectionContext,
    answered: Promise<void>,
    { type, fields, replyTo }: { readonly type: string; readonly fields: Fields; readonly replyTo: ReplyTo },
  ): Promise<void> {
    const handled = answered.catch((thrown) => {
      this.#fail(connection, withRequestId(toTollgateError(thrown), fields), type, replyTo);
    });
    return connection.counters.untilAnswered(handled);
  }

  #countOk({ counters }: ConnectionContext, type: string): void {
    this.#deps.metrics.messages.inc({ type, result: 'ok' });
    counters.resetBadFrames();
  }

  #fail(connection: ConnectionContext, error: TollgateError, type: string, replyTo: ReplyTo): void {
    const { tracing, metrics, refusals, logger } = this.#deps;
    tracing.failed(error);
    if (connection.closed) return;
    metrics.messages.inc({ type, result: error.code });
    if (connection.identity) refusals.refused(connection.identity.userId, error);
    if (error.code === 'INTERNAL_ERROR')
      logger.error({ ...logContext(connection), type, err: error.cause }, 'message failed');
    const isTolerated = !BAD_FRAME_CODES.includes(error.code) || connection.counters.addBadFrame();
    if (isTolerated) connection.writer.sendError(error, replyTo);
    else connection.close(error);
  }
}

/** Counts a message before authentication; closes the connection above the bound. */
export function countUnauthenticated(connection: ConnectionContext): void {
  if (!connection.counters.addUnauthenticatedMessage()) connection.close(new TollgateError('NO_TOKEN'));
}

function sendReply({ writer }: ConnectionContext, reply: Reply, replyTo: ReplyTo): void {
  if (!reply) return;
  if (!reply.sentAsEvent || replyTo) writer.send(reply.type, reply.fields, replyTo);
  reply.onSent?.();
}

function basicEndpoint(message: IncomingMessage): Reply {
  return { type: 'info', fields: { message: BASIC_ENDPOINT, ...receivedType(message) } };
}

/** Truncates an unknown message type, because the client may have sent any string. */
function receivedType({ name }: IncomingMessage): { readonly received_type: string } {
  return { received_type: name.slice(0, 64) };
}

/** Adds the `request_id` of the message, so that a client with several requests can identify the failed one. */
function withRequestId(error: TollgateError, fields: Readonly<Record<string, unknown>>): TollgateError {
  const requestId = fields.request_id;
  if (typeof requestId !== 'string' || requestId.length > 128) return error;
  return error.with({ request_id: requestId });
}
