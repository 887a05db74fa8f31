import type { Authenticator } from '../auth/authenticator.ts';
import type { InBandCredential } from '../auth/credentials.ts';
import type { ReplayGap } from '../events/cursor.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { IncomingMessage, ReplyTo } from '../protocol/dialects.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields, LogEntry, PublishedEvent, ServerEventType } from '../protocol/messages.ts';
import { terminationReason } from '../protocol/token-lifecycle.ts';
import { Attachment, type AttachmentDeps, type AttachmentEvents } from './attachment.ts';
import { ConnectionWriter } from './connection-writer.ts';
import { type DispatchedConnection, Dispatcher, type DispatcherDeps } from './dispatcher.ts';
import type { ConnectionContext, Reply } from './handlers.ts';
import type { HandshakeOptions, PendingConnection } from './handshake.ts';
import type { Hub } from './hub.ts';
import { Keepalive } from './keepalive.ts';
import type { ConnectionLimits } from './limits.ts';
import { ResumeGrace } from './resume-grace.ts';
import type { Transport, TransportEvents } from './transport.ts';
import type { Welcome } from './welcome.ts';

export interface ConnectionDeps extends AttachmentDeps, DispatcherDeps {
  readonly authenticator: Pick<Authenticator, 'message' | 'renewal'>;
  readonly welcome: Welcome;
  readonly hub: Hub;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly nodeId: string;
  readonly limits: ConnectionLimits;
}

/** A reason of its own: `abort()` without one makes a DOMException with a stack, at every call. */
const CLOSED = 'closed';

/**
 * One client connection, whatever its transport.
 *
 * States: `opening` → `unauthenticated` (only `/ws`) → `live` → `closed`. `open` and `authenticate` move it forward,
 * `close` (our decision) and `gone` (the socket's end) lead to `closed` from everywhere, once. After every `await` the
 * state is asked again, since the socket may have closed meanwhile.
 */
export class Connection implements TransportEvents, AttachmentEvents, DispatchedConnection, ConnectionContext {
  readonly connectionId = newId('ws');
  threadId = newId('thread');
  readonly #deps: ConnectionDeps;
  readonly #transport: Transport;
  readonly #pending: PendingConnection;
  readonly #closing = new AbortController();
  readonly #writer: ConnectionWriter;
  readonly #dispatcher: Dispatcher;
  readonly #resumeGrace: ResumeGrace;
  readonly #openedAt: number;
  readonly #keepalive: Keepalive;
  #attachment: Attachment | undefined;
  #cancelAuthDeadline: (() => void) | undefined;

  constructor(deps: ConnectionDeps, transport: Transport, pending: PendingConnection) {
    this.#deps = deps;
    this.#transport = transport;
    this.#pending = pending;
    this.#writer = new ConnectionWriter({ transport, clock: deps.clock }, this.#closing.signal, () => {
      this.close(new TollgateError('SLOW_CONSUMER'));
    });
    this.#dispatcher = new Dispatcher(deps, this);
    this.#resumeGrace = new ResumeGrace(deps.clock);
    this.#openedAt = deps.clock.now();
    this.#keepalive = new Keepalive(deps.limits, this.#openedAt);
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** The session, once there is one; the hub renews its lease. */
  get attachment(): Attachment | undefined {
    return this.#attachment;
  }

  get endpoint(): string {
    return this.#transport.endpoint;
  }

  /**
   * Begins: finds out who speaks, takes a place and says welcome. What the client sends meanwhile waits. A failure is
   * told to the client and ends the connection.
   * @param authenticate the identity of the handshake, undefined when it brought none
   */
  accept(authenticate: () => Promise<Identity | undefined>, options: HandshakeOptions): Promise<void> {
    this.#deps.hub.add(this);
    // Absolute: from the open, whatever is sent and however long somebody else takes to say whether a token is good.
    const deadline = () => this.close(new TollgateError('AUTH_TIMEOUT'));
    this.#cancelAuthDeadline = this.#deps.clock.after(this.#deps.limits.authDeadlineMs, deadline);
    const accepted = this.#dispatcher.runHandshake(async () => {
      try {
        const identity = await this.#pending.authenticate(authenticate);
        if (this.closed) return undefined;
        if (identity) await this.#acceptUser(identity, options.resumeFrom !== undefined);
        else if (options.identityRequired) throw new TollgateError('NO_TOKEN');
        else this.#acceptUnauthenticated();
      } catch (thrown) {
        const error = toTollgateError(thrown);
        this.#deps.metrics.handshakes.inc({ endpoint: this.endpoint, result: error.code });
        this.close(error);
        return error;
      }
      return undefined;
    });
    // A step of its own: over Socket.IO nothing can be sent before the client has been told that it is connected.
    if (options.resumeFrom) void this.#dispatcher.enqueueFirst(() => this.#resumeFromHandshake(options));
    return accepted;
  }

  // What the transport tells.

  receive(message: IncomingMessage): void {
    if (this.closed) return;
    this.markAlive();
    this.#dispatcher.dispatch(message);
  }

  reject(error: TollgateError, replyTo: ReplyTo): void {
    if (this.closed) return;
    this.markAlive();
    this.#dispatcher.reject(error, replyTo);
  }

  markAlive(): void {
    this.#keepalive.markAlive(this.#deps.clock.now());
  }

  countBytes(bytes: number): void {
    if (!this.closed) this.#dispatcher.countBytes(bytes);
  }

  onClose(): void {
    this.#closing.abort(CLOSED);
    this.#detach();
  }

  // What handlers may do.

  get identity(): Identity {
    if (!this.#attachment) throw new TollgateError('NO_TOKEN');
    return this.#attachment.identity;
  }

  get degraded(): boolean {
    return this.#attachment?.token.state === 'degraded';
  }

  get transportName(): 'websocket' | 'socketio' | 'mcp' {
    if (this.#transport.format === 'socketio') return 'socketio';
    return this.#transport.format === 'jsonrpc' ? 'mcp' : 'websocket';
  }

  now(): Date {
    return new Date(this.#deps.clock.now());
  }

  /** In-band authentication. One that fails ends the connection, as one at the handshake does. */
  async authenticate(presented: InBandCredential): Promise<Reply> {
    try {
      const identity = await this.#pending.authenticate(async () => {
        const found = await this.#deps.authenticator.message(presented, this.#attachment?.identity);
        if (this.#attachment && found.userId !== this.identity.userId) throw new TollgateError('USER_MISMATCH');
        return found;
      });
      if (this.#attachment) return { type: 'auth_success', fields: this.#authSuccess({}) };
      const attached = this.closed ? undefined : await this.#attach(identity, false);
      return attached && { type: 'auth_success', fields: this.#authSuccess(attached) };
    } catch (thrown) {
      this.close(toTollgateError(thrown));
      return undefined;
    }
  }

  async renewToken(token: string | undefined): Promise<Reply> {
    try {
      if (token === undefined) await this.#attachment?.token.requestRefresh();
      else await this.#attachment?.acceptToken(token);
    } catch (thrown) {
      const error = toTollgateError(thrown);
      if (error.code !== 'USER_MISMATCH') throw error;
      this.close(error);
    }
    this.#deps.hub.changed(this);
    const { token_expires_at } = this.#deps.welcome.identity(this.identity);
    return { type: token === undefined ? 'token_refresh_scheduled' : 'token_refreshed', fields: { token_expires_at } };
  }

  async resume(after: number, epoch: string, allowed: Promise<void>): Promise<Reply> {
    let reply: Reply;
    await this.#attachment?.cursor.resume({ after, epoch, allowed }, ({ resumed, ...fields }) => {
      this.#deps.metrics.resumes.inc({ result: 'reason' in fields ? fields.reason : 'resumed' });
      reply = { type: resumed ? 'resumed' : 'resume_failed', fields, sentAsEvent: true };
      this.#writer.send(reply.type, fields);
    });
    this.onFirstMessage();
    return reply;
  }

  // What the inbox asks.

  get context(): ConnectionContext {
    return this;
  }

  get user(): { readonly userId: string; readonly plan: string } | undefined {
    return this.#attachment?.identity;
  }

  sendReply({ type, fields, sentAsEvent }: NonNullable<Reply>, replyTo: ReplyTo): void {
    if (!sentAsEvent || replyTo) this.#writer.send(type, fields, replyTo);
  }

  sendFrame(frame: string): void {
    this.#writer.sendFrame(frame);
  }

  sendError(error: TollgateError, replyTo: ReplyTo): void {
    this.#writer.sendError(error, replyTo);
  }

  async withEventsPaused<T>(work: () => Promise<T>): Promise<T> {
    const cursor = this.#attachment?.cursor;
    cursor?.pause();
    try {
      return await work();
    } finally {
      cursor?.unpause();
    }
  }

  onFirstMessage(): void {
    this.#resumeGrace.end();
  }

  // What the session tells.

  deliver(entry: LogEntry): void {
    this.#deps.metrics.delivered.inc();
    this.#writer.sendEntry(entry);
  }

  onReplayGap(loss: ReplayGap): void {
    this.#deps.metrics.resumes.inc({ result: loss.reason });
    this.#writer.send('resume_failed', { ...loss });
  }

  writable(): Promise<boolean> {
    return this.#writer.untilDrained();
  }

  onError(cause: unknown): void {
    this.close(new TollgateError('INTERNAL_ERROR', { cause }));
  }

  onTerminated(code: ErrorCode, reason = terminationReason(code)): void {
    if (code === 'CONNECTION_LIMIT_EXCEEDED' && !this.closed) this.#deps.metrics.evictions.inc();
    if (reason && this.#attachment) this.#writer.send('session_terminated', { reason });
    this.close(new TollgateError(code));
  }

  onTokenChanged(type: ServerEventType, fields: Fields): void {
    this.#writer.send(type, fields);
    this.#deps.hub.changed(this);
  }

  onPlanChanged(): void {
    // Until it is there, the welcome is still to come, and tells the plan.
    if (!this.#attachment) return;
    this.#deps.hub.changed(this);
    const { plan, permissions } = this.#deps.welcome.identity(this.identity);
    const limits = this.#deps.welcome.limits(this.identity.plan, this.#transport.format);
    this.#writer.send('plan_changed', { plan, permissions, limits });
  }

  onPublished(type: PublishedEvent, fields: Fields): void {
    if (this.#attachment) this.#writer.send(type, fields);
  }

  // What time does.

  onClockJump(now: number, ms: number): void {
    this.#keepalive.onClockJump(now, ms);
    this.#writer.onClockJump();
  }

  /** Called about once a second: heartbeats, silence, age, the token's end, output that is not taken. */
  tick(now: number): void {
    if (this.closed) return;
    const due = this.#keepalive.due(now, this.#dispatcher.busy);
    if (due === 'silence') return this.close(new TollgateError('CONNECTION_TIMEOUT'));
    if (due === 'old_age') return this.drain(0);
    if (due === 'heartbeat') {
      this.#transport.ping();
      this.#writer.send('heartbeat', { connection_id: this.connectionId });
    }
    this.#attachment?.token.tick(now);
    this.#writer.tick(now);
  }

  /** Tells why, closes the socket, then gives everything back. Idempotent; frames that come later are ignored. */
  close(error: TollgateError): void {
    if (error.code === 'INTERNAL_ERROR')
      this.#deps.logger.error({ ...this.#logContext(), err: error.cause }, 'a connection failed');
    if (!this.#attachment && !this.closed) this.#pending.recordRefusal(error);
    this.#end(error.row.close ?? 1008, error.code, () => this.#transport.sendError(error));
  }

  /** Asks the client to come back elsewhere. */
  drain(retryAfterMs: number): void {
    const fields = { retry_after_ms: retryAfterMs };
    this.#end(1012, 'SERVER_DRAINING', () => this.#transport.send('server_draining', fields));
  }

  /** The last word goes past the bound of the outbox: that may be what ends the connection. */
  #end(code: number, reason: ErrorCode, sendReason: () => void): void {
    if (this.closed) return;
    this.#closing.abort(CLOSED);
    this.#deps.metrics.closes.inc({ code: reason });
    sendReason();
    this.#transport.close(code, reason);
    this.#detach();
  }

  /** In a line of the log. */
  #logContext(): object {
    const { user } = this;
    return { connection_id: this.connectionId, ...(user ? { user: userHash(user.userId) } : {}) };
  }

  #detach(): void {
    this.#cancelAuthDeadline?.();
    this.onFirstMessage();
    this.#attachment?.detach();
    this.#deps.hub.remove(this);
  }

  /** Undefined when the socket closed meanwhile. */
  async #attach(identity: Identity, resumes: boolean): Promise<Fields | undefined> {
    const [node, opened_at] = [this.#deps.nodeId, new Date(this.#openedAt).toISOString()];
    const details = { node, endpoint: this.#transport.endpoint, opened_at };
    const attachment = new Attachment(this.#deps, { connectionId: this.connectionId, identity, details }, this);
    const admission = await attachment.attach();
    if (this.closed || !admission) {
      attachment.detach();
      return undefined;
    }
    this.#cancelAuthDeadline?.();
    this.#attachment = attachment;
    this.#deps.hub.authenticated(this);
    this.#deps.logger.debug(this.#logContext(), 'admitted');
    this.#resumeGrace.start(() => attachment.cursor.unpause(), resumes);
    // After this step has told the client who it is.
    void this.#dispatcher.enqueueFirst(async () => attachment.token.welcomed());
    return { auth_method: identity.method, epoch: admission.epoch, seq: admission.seq };
  }

  #acceptUnauthenticated(): void {
    this.#sendWelcome({ authenticated: false });
    this.#deps.metrics.handshakes.inc({ endpoint: this.endpoint, result: 'unauthenticated' });
  }

  async #acceptUser(identity: Identity, resumes: boolean): Promise<void> {
    const attached = await this.#attach(identity, resumes);
    if (!attached) return;
    this.#sendWelcome({ authenticated: true, ...attached, ...this.#deps.welcome.identity(this.identity) });
    this.#deps.metrics.handshakes.inc({ endpoint: this.endpoint, result: 'ok' });
  }

  async #resumeFromHandshake({ resumeFrom, writable }: HandshakeOptions): Promise<void> {
    await writable;
    if (!resumeFrom || this.closed) return;
    await this.resume(resumeFrom.after, resumeFrom.epoch, Promise.resolve());
  }

  #authSuccess(attached: Fields): Fields {
    return { ...attached, ...this.#deps.welcome.forAuthenticated(this, this.#transport.format) };
  }

  #sendWelcome(fields: Fields): void {
    this.#writer.send('connection_established', {
      connection_id: this.connectionId,
      endpoint: this.#transport.endpoint,
      format: this.#transport.format,
      server_time: this.now().toISOString(),
      server_id: this.#deps.nodeId,
      limits: this.#deps.welcome.limits(this.#attachment?.identity.plan, this.#transport.format),
      ...(this.#attachment ? { thread_id: this.threadId } : {}),
      ...fields,
    });
  }
}
