import type { InBandCredential } from '../auth/credentials.ts';
import { userHash } from '../lib/logger.ts';
import type { Span, TraceParent } from '../lib/tracing.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import type { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields, LogEntry, ServerEventType } from '../protocol/messages.ts';
import type { ConnectionWriter } from './connection-writer.ts';
import type { InputCounters } from './input-counters.ts';

/** Answer of a handler; undefined when the connection has closed. */
export type Reply =
  | {
      readonly type: ServerEventType;
      readonly fields: Fields;
      /** The reply was already sent as an event. Only a request with its own acknowledgement receives it again. */
      readonly sentAsEvent?: true;
      /** Called after the reply was sent. */
      readonly onSent?: () => void;
    }
  | undefined;

/** The connection as the dispatcher and the message handlers see it. */
export interface ConnectionContext {
  readonly connectionId: string;
  /** Path of the endpoint, for metrics and traces. */
  readonly endpoint: string;
  /** Transport of the request, as usage records name it. */
  readonly transportName: 'websocket' | 'socketio' | 'mcp';
  /**
   * Thread of requests that name none. If the plan allowed no further thread, this is the thread that the first of
   * these requests received.
   */
  threadId: string;
  /** Undefined before authentication. */
  readonly identity: Identity | undefined;
  /** Whether the token could not be refreshed, so that only free tools remain available (docs/protocol.md). */
  readonly degraded: boolean;
  /** After the close, no message takes effect. */
  readonly closed: boolean;
  /** Trace of the handshake. A connection lives for hours: each message has its own trace, linked to this one. */
  readonly handshakeTrace: TraceParent | undefined;
  readonly writer: ConnectionWriter;
  readonly counters: InputCounters;
  /** Dispatcher of MCP messages; undefined unless the connection carries them. */
  readonly rpc: RpcDispatcher | undefined;
  close(error: TollgateError): void;
  /** Delays live events until the returned function is called. */
  pauseEvents(): () => void;
  /** Called at the first message that rules out a later `resume`. */
  endResumeGrace(): void;
  authenticate(presented: InBandCredential): Promise<Reply>;
  /** @param token undefined to refresh the current token now */
  renewToken(token: string | undefined, refreshToken?: string): Promise<Reply>;
  /** Delivers no event before the message limiter has decided. */
  resume(after: number, epoch: string, limit: MessageLimit): Promise<Reply>;
}

/** What a handler receives with each message. */
export interface MessageContext<User extends Identity | undefined = Identity> {
  readonly connection: ConnectionContext;
  readonly identity: User;
  readonly limit: MessageLimit;
}

/** A JSON-RPC 2.0 message. */
export interface RpcMessage {
  /** Undefined for a notification, which gets no answer. */
  readonly id: string | number | undefined;
  readonly method: string;
  readonly params: Fields;
}

export type RpcRequest = RpcMessage & { readonly id: string | number };

/**
 * Port to the messages of another protocol on a connection: MCP beside Tollgate's own messages (`/ws/mcp`), or the
 * chats of the AI SDK (`/v1/chat/ws`).
 */
export interface RpcDispatcher {
  /** Whether a method belongs to MCP in the current state of the MCP session. */
  handles(method: string): boolean;
  /** Observes a message before the limits apply, so that a cancellation does not wait for the work that it cancels. */
  observe(message: RpcMessage): void;
  /**
   * Returns the frame that answers a request; undefined for none.
   * @param ctx nothing takes effect before its limit has allowed the request
   * @throws TollgateError RATE_LIMITED, OVERLOADED
   */
  answer(ctx: MessageContext, request: RpcRequest): Promise<string | undefined>;
  /** Receives the durable events in place of the transport, for a protocol with events of its own. */
  deliver?(entry: LogEntry): void;
  /** The log no longer contains events that were not delivered. */
  onReplayGap?(gap: Fields): void;
}

/** Names connection and user in a log line. The user appears only as a hash. */
export function logContext({ connectionId, identity }: Pick<ConnectionContext, 'connectionId' | 'identity'>): object {
  return { connection_id: connectionId, ...(identity ? { user: userHash(identity.userId) } : {}) };
}

/** Adds connection, user and plan to a span. The user appears only as a hash. */
export function describeSpan(span: Span, { connectionId, endpoint, identity }: ConnectionContext): void {
  if (!span.recording) return;
  span.set({
    'tollgate.endpoint': endpoint,
    'tollgate.connection.id': connectionId,
    ...(identity ? { 'user.hash': userHash(identity.userId), 'tollgate.plan': identity.plan } : {}),
  });
}
