import type { Authenticator } from '../auth/authenticator.ts';
import type { InBandCredential } from '../auth/credentials.ts';
import type { ReplayGap } from '../events/cursor.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { type MessageLimit, NO_MESSAGE_LIMIT } from '../limits/message-limit.ts';
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

/** Explicit abort reason: `abort()` without one creates a DOMException with a stack trace on every call. */
const CLOSED = 'closed';

/**
 * Server-side state of one client connection, independent of its transport.
 *
 *     handshake ──accept()──► live
 *         └─accept(), only /ws──► unauthenticated ──authenticate()──► live
 *     any state ──close() or drain() by the server, onClose() by the socket──► closed, exactly once
 *
 * Every method rechecks `closed` after an `await`, because the socket may have closed meanwhile.
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

  /** Undefined before authentication. The hub renews its lease. */
  get attachment(): Attachment | undefined {
    return this.#attachment;
  }

  get endpoint(): string {
    return this.#transport.endpoint;
  }

  /**
   * Runs the handshake: authenticates the client, admits it and sends the welcome. Messages that arrive meanwhile wait
   * in the dispatcher. A failure is sent to the client and closes the connection.
   * @param authenticate returns the identity of the handshake, undefined when it contained no credential
   */
  accept(authenticate: () => Promise<Identity | undefined>, options: HandshakeOptions): Promise<void> {
    this.#deps.hub.add(this);
    // Absolute, from the socket's open: neither messages nor a slow auth service extend the deadline.
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
    // A separate step, because Socket.IO cannot send anything before it has confirmed the connection to the client.
    if (options.resumeFrom) void this.#dispatcher.enqueueFirst(() => this.#resumeFromHandshake(options));
    return accepted;
  }

  // TransportEvents

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

  // ConnectionContext

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

  /** Authenticates by message. A failure closes the connection, as it does in the handshake. */
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

  async resume(after: number, epoch: string, { allowed }: MessageLimit): Promise<Reply> {
    let reply: Reply;
    await this.#attachment?.cursor.resume({ after, epoch, allowed }, ({ resumed, ...fields }) => {
      this.#deps.metrics.resumes.inc({ result: 'reason' in fields ? fields.reason : 'resumed' });
      reply = { type: resumed ? 'resumed' : 'resume_failed', fields, sentAsEvent: true };
      this.#writer.send(reply.type, fields);
    });
    this.onFirstMessage();
    return reply;
  }

  // DispatchedConnection

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

  // AttachmentEvents

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
    // Before the attachment is set, the welcome has not been sent yet, and it contains the plan.
    if (!this.#attachment) return;
    this.#deps.hub.changed(this);
    const { plan, permissions } = this.#deps.welcome.identity(this.identity);
    const limits = this.#deps.welcome.limits(this.identity.plan, this.#transport.format);
    this.#writer.send('plan_changed', { plan, permissions, limits });
  }

  onPublished(type: PublishedEvent, fields: Fields): void {
    if (this.#attachment) this.#writer.send(type, fields);
  }

  // HubConnection

  onClockJump(now: number, ms: number): void {
    this.#keepalive.onClockJump(now, ms);
    this.#writer.onClockJump();
  }

  /** Runs about once per second: heartbeat, idle timeout, maximum age, token expiry, unread output. */
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

  /** Sends the error, closes the socket and releases all resources. Idempotent; later frames are ignored. */
  close(error: TollgateError): void {
    if (error.code === 'INTERNAL_ERROR')
      this.#deps.logger.error({ ...this.#logContext(), err: error.cause }, 'connection failed');
    if (!this.#attachment && !this.closed) this.#pending.recordRefusal(error);
    this.#end(error.row.close ?? 1008, error.code, () => this.#transport.sendError(error));
  }

  /** Asks the client to reconnect to another node and closes the connection. */
  drain(retryAfterMs: number): void {
    const fields = { retry_after_ms: retryAfterMs };
    this.#end(1012, 'SERVER_DRAINING', () => this.#transport.send('server_draining', fields));
  }

  /** Sends the last message past the connection writer, whose exceeded bound may be the reason for the close. */
  #end(code: number, reason: ErrorCode, sendReason: () => void): void {
    if (this.closed) return;
    this.#closing.abort(CLOSED);
    this.#deps.metrics.closes.inc({ code: reason });
    sendReason();
    this.#transport.close(code, reason);
    this.#detach();
  }

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

  /** Returns undefined when the socket closed meanwhile. */
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
    // Runs after the current step, which sends the identity to the client.
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
    await this.resume(resumeFrom.after, resumeFrom.epoch, NO_MESSAGE_LIMIT);
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
