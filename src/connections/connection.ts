import type { Authenticator } from '../auth/authenticator.ts';
import type { InBandCredential } from '../auth/credentials.ts';
import type { Loss } from '../events/cursor.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { IncomingMessage, ReplyTo } from '../protocol/dialects.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields, LogEntry, PublishedEvent, ServerEventType } from '../protocol/messages.ts';
import { terminationReason } from '../protocol/token-life.ts';
import type { Reply, Speaker } from './handlers.ts';
import type { Hub } from './hub.ts';
import { Inbox, type InboxDeps, type InboxOwner } from './inbox.ts';
import type { ConnectionLimits } from './limits.ts';
import type { Opening, Visitor } from './opening.ts';
import { Outbox } from './outbox.ts';
import { Pulse } from './pulse.ts';
import { ResumeGrace } from './resume-grace.ts';
import { Session, type SessionDeps, type SessionEvents } from './session.ts';
import type { Transport, TransportEvents } from './transport.ts';
import type { Welcome } from './welcome.ts';

export interface ConnectionDeps extends SessionDeps, InboxDeps {
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
export class Connection implements TransportEvents, SessionEvents, InboxOwner, Speaker {
  readonly connectionId = newId('ws');
  threadId = newId('thread');
  readonly #deps: ConnectionDeps;
  readonly #transport: Transport;
  readonly #visitor: Visitor;
  readonly #closing = new AbortController();
  readonly #outbox: Outbox;
  readonly #inbox: Inbox;
  readonly #resumeGrace: ResumeGrace;
  readonly #openedAt: number;
  readonly #pulse: Pulse;
  #session: Session | undefined;
  #cancelAuthDeadline: (() => void) | undefined;

  constructor(deps: ConnectionDeps, transport: Transport, visitor: Visitor) {
    this.#deps = deps;
    this.#transport = transport;
    this.#visitor = visitor;
    this.#outbox = new Outbox({ transport, clock: deps.clock }, this.#closing.signal, () => {
      this.close(new TollgateError('SLOW_CONSUMER'));
    });
    this.#inbox = new Inbox(deps, this);
    this.#resumeGrace = new ResumeGrace(deps.clock);
    this.#openedAt = deps.clock.now();
    this.#pulse = new Pulse(deps.limits, this.#openedAt);
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** The session, once there is one; the hub renews its lease. */
  get session(): Session | undefined {
    return this.#session;
  }

  get endpoint(): string {
    return this.#transport.endpoint;
  }

  /**
   * Begins: finds out who speaks, takes a place and says welcome. What the client sends meanwhile waits. A failure is
   * told to the client and ends the connection.
   * @param identify the identity of the handshake, undefined when it brought none
   */
  begin(identify: () => Promise<Identity | undefined>, opening: Opening): Promise<void> {
    this.#deps.hub.add(this);
    // Absolute: from the open, whatever is sent and however long somebody else takes to say whether a token is good.
    const deadline = () => this.close(new TollgateError('AUTH_TIMEOUT'));
    this.#cancelAuthDeadline = this.#deps.clock.after(this.#deps.limits.authDeadlineMs, deadline);
    const opened = this.#inbox.open(async () => {
      try {
        const identity = await this.#visitor.identify(identify);
        if (this.closed) return undefined;
        if (identity) await this.#openFor(identity, opening.resumeFrom !== undefined);
        else if (opening.identityRequired) throw new TollgateError('NO_TOKEN');
        else this.#openForAnyone();
      } catch (thrown) {
        const error = toTollgateError(thrown);
        this.#deps.metrics.handshakes.inc({ endpoint: this.endpoint, result: error.code });
        this.close(error);
        return error;
      }
      return undefined;
    });
    // A step of its own: over Socket.IO nothing can be sent before the client has been told that it is connected.
    if (opening.resumeFrom) void this.#inbox.first(() => this.#resumeAtOpen(opening));
    return opened;
  }

  // What the transport tells.

  receive(message: IncomingMessage): void {
    if (this.closed) return;
    this.alive();
    this.#inbox.receive(message);
  }

  reject(error: TollgateError, replyTo: ReplyTo): void {
    if (this.closed) return;
    this.alive();
    this.#inbox.reject(error, replyTo);
  }

  alive(): void {
    this.#pulse.heard(this.#deps.clock.now());
  }

  heard(bytes: number): void {
    if (!this.closed) this.#inbox.count(bytes);
  }

  gone(): void {
    this.#closing.abort(CLOSED);
    this.#leave();
  }

  // What handlers may do.

  get identity(): Identity {
    if (!this.#session) throw new TollgateError('NO_TOKEN');
    return this.#session.identity;
  }

  get degraded(): boolean {
    return this.#session?.token.state === 'degraded';
  }

  get road(): 'websocket' | 'socketio' | 'mcp' {
    if (this.#transport.format === 'socketio') return 'socketio';
    return this.#transport.format === 'jsonrpc' ? 'mcp' : 'websocket';
  }

  now(): Date {
    return new Date(this.#deps.clock.now());
  }

  /** In-band authentication. One that fails ends the connection, as one at the handshake does. */
  async authenticate(presented: InBandCredential): Promise<Reply> {
    try {
      const identity = await this.#visitor.identify(async () => {
        const found = await this.#deps.authenticator.message(presented, this.#session?.identity);
        if (this.#session && found.userId !== this.identity.userId) throw new TollgateError('USER_MISMATCH');
        return found;
      });
      if (this.#session) return { type: 'auth_success', fields: this.#authSuccess({}) };
      const joined = this.closed ? undefined : await this.#join(identity, false);
      return joined && { type: 'auth_success', fields: this.#authSuccess(joined) };
    } catch (thrown) {
      this.close(toTollgateError(thrown));
      return undefined;
    }
  }

  async renewToken(token: string | undefined): Promise<Reply> {
    try {
      if (token === undefined) await this.#session?.token.hasten();
      else await this.#session?.bringToken(token);
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
    await this.#session?.cursor.resume({ after, epoch, allowed }, ({ resumed, ...fields }) => {
      this.#deps.metrics.resumes.inc({ result: 'reason' in fields ? fields.reason : 'resumed' });
      reply = { type: resumed ? 'resumed' : 'resume_failed', fields, announced: true };
      this.#outbox.send(reply.type, fields);
    });
    this.spoken();
    return reply;
  }

  // What the inbox asks.

  get speaker(): Speaker {
    return this;
  }

  get user(): { readonly userId: string; readonly plan: string } | undefined {
    return this.#session?.identity;
  }

  reply({ type, fields, announced }: NonNullable<Reply>, replyTo: ReplyTo): void {
    if (!announced || replyTo) this.#outbox.send(type, fields, replyTo);
  }

  frame(frame: string): void {
    this.#outbox.frame(frame);
  }

  error(error: TollgateError, replyTo: ReplyTo): void {
    this.#outbox.error(error, replyTo);
  }

  async holding<T>(work: () => Promise<T>): Promise<T> {
    const cursor = this.#session?.cursor;
    cursor?.hold();
    try {
      return await work();
    } finally {
      cursor?.release();
    }
  }

  spoken(): void {
    this.#resumeGrace.end();
  }

  // What the session tells.

  deliver(entry: LogEntry): void {
    this.#deps.metrics.delivered.inc();
    this.#outbox.entry(entry);
  }

  lost(loss: Loss): void {
    this.#deps.metrics.resumes.inc({ result: loss.reason });
    this.#outbox.send('resume_failed', { ...loss });
  }

  writable(): Promise<boolean> {
    return this.#outbox.drained();
  }

  failed(cause: unknown): void {
    this.close(new TollgateError('INTERNAL_ERROR', { cause }));
  }

  ended(code: ErrorCode, reason = terminationReason(code)): void {
    if (code === 'CONNECTION_LIMIT_EXCEEDED' && !this.closed) this.#deps.metrics.evictions.inc();
    if (reason && this.#session) this.#outbox.send('session_terminated', { reason });
    this.close(new TollgateError(code));
  }

  tokenChanged(type: ServerEventType, fields: Fields): void {
    this.#outbox.send(type, fields);
    this.#deps.hub.changed(this);
  }

  planChanged(): void {
    // Until it is there, the welcome is still to come, and tells the plan.
    if (!this.#session) return;
    this.#deps.hub.changed(this);
    const { plan, permissions } = this.#deps.welcome.identity(this.identity);
    const limits = this.#deps.welcome.limits(this.identity.plan, this.#transport.format);
    this.#outbox.send('plan_changed', { plan, permissions, limits });
  }

  published(type: PublishedEvent, fields: Fields): void {
    if (this.#session) this.#outbox.send(type, fields);
  }

  // What time does.

  leapt(now: number, ms: number): void {
    this.#pulse.leapt(now, ms);
    this.#outbox.leapt();
  }

  /** Called about once a second: heartbeats, silence, age, the token's end, output that is not taken. */
  tick(now: number): void {
    if (this.closed) return;
    const due = this.#pulse.due(now, this.#inbox.busy);
    if (due === 'silence') return this.close(new TollgateError('CONNECTION_TIMEOUT'));
    if (due === 'old_age') return this.drain(0);
    if (due === 'heartbeat') {
      this.#transport.ping();
      this.#outbox.send('heartbeat', { connection_id: this.connectionId });
    }
    this.#session?.token.tick(now);
    this.#outbox.tick(now);
  }

  /** Tells why, closes the socket, then gives everything back. Idempotent; frames that come later are ignored. */
  close(error: TollgateError): void {
    if (error.code === 'INTERNAL_ERROR')
      this.#deps.logger.error({ ...this.#who(), err: error.cause }, 'a connection failed');
    if (!this.#session && !this.closed) this.#visitor.refused(error);
    this.#end(error.row.close ?? 1008, error.code, () => this.#transport.sendError(error));
  }

  /** Asks the client to come back elsewhere. */
  drain(retryAfterMs: number): void {
    const fields = { retry_after_ms: retryAfterMs };
    this.#end(1012, 'SERVER_DRAINING', () => this.#transport.send('server_draining', fields));
  }

  /** The last word goes past the bound of the outbox: that may be what ends the connection. */
  #end(code: number, reason: ErrorCode, lastWord: () => void): void {
    if (this.closed) return;
    this.#closing.abort(CLOSED);
    this.#deps.metrics.closes.inc({ code: reason });
    lastWord();
    this.#transport.close(code, reason);
    this.#leave();
  }

  /** In a line of the log. */
  #who(): object {
    const { user } = this;
    return { connection_id: this.connectionId, ...(user ? { user: userHash(user.userId) } : {}) };
  }

  #leave(): void {
    this.#cancelAuthDeadline?.();
    this.spoken();
    this.#session?.leave();
    this.#deps.hub.remove(this);
  }

  /** Undefined when the socket closed meanwhile. */
  async #join(identity: Identity, resumes: boolean): Promise<Fields | undefined> {
    const [node, opened_at] = [this.#deps.nodeId, new Date(this.#openedAt).toISOString()];
    const details = { node, endpoint: this.#transport.endpoint, opened_at };
    const session = new Session(this.#deps, { connectionId: this.connectionId, identity, details }, this);
    const admission = await session.join();
    if (this.closed || !admission) {
      session.leave();
      return undefined;
    }
    this.#cancelAuthDeadline?.();
    this.#session = session;
    this.#deps.hub.joined(this);
    this.#deps.logger.debug(this.#who(), 'admitted');
    this.#resumeGrace.begin(() => session.cursor.release(), resumes);
    // After this step has told the client who it is.
    void this.#inbox.first(async () => session.token.opened());
    return { auth_method: identity.method, epoch: admission.epoch, seq: admission.seq };
  }

  #openForAnyone(): void {
    this.#sendWelcome({ authenticated: false });
    this.#deps.metrics.handshakes.inc({ endpoint: this.endpoint, result: 'unauthenticated' });
  }

  async #openFor(identity: Identity, resumes: boolean): Promise<void> {
    const joined = await this.#join(identity, resumes);
    if (!joined) return;
    this.#sendWelcome({ authenticated: true, ...joined, ...this.#deps.welcome.identity(this.identity) });
    this.#deps.metrics.handshakes.inc({ endpoint: this.endpoint, result: 'ok' });
  }

  async #resumeAtOpen({ resumeFrom, writable }: Opening): Promise<void> {
    await writable;
    if (!resumeFrom || this.closed) return;
    await this.resume(resumeFrom.after, resumeFrom.epoch, Promise.resolve());
  }

  #authSuccess(joined: Fields): Fields {
    return { ...joined, ...this.#deps.welcome.member(this, this.#transport.format) };
  }

  #sendWelcome(fields: Fields): void {
    this.#outbox.send('connection_established', {
      connection_id: this.connectionId,
      endpoint: this.#transport.endpoint,
      format: this.#transport.format,
      server_time: this.now().toISOString(),
      server_id: this.#deps.nodeId,
      limits: this.#deps.welcome.limits(this.#session?.identity.plan, this.#transport.format),
      ...(this.#session ? { thread_id: this.threadId } : {}),
      ...fields,
    });
  }
}
