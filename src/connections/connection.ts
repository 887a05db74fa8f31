import type { Authenticator } from '../auth/authenticator.ts';
import type { InBandCredential } from '../auth/credentials.ts';
import type { Admission, ConnectionDetails } from '../cluster/connection-registry.ts';
import type { ReplayGap } from '../events/cursor.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { SerialQueue, type SerialQueueOwner } from '../lib/serial-queue.ts';
import type { TraceParent } from '../lib/tracing.ts';
import { type MessageLimit, NO_MESSAGE_LIMIT } from '../limits/message-limit.ts';
import type { FormatName, IncomingMessage, ReplyTo } from '../protocol/dialects.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields, LogEntry, PublishedEvent, ServerEventType } from '../protocol/messages.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import { terminationReason } from '../protocol/token-lifecycle.ts';
import { Attachment, type AttachmentDeps, type AttachmentEvents } from './attachment.ts';
import { type ConnectionContext, logContext, type Reply, type RpcDispatcher } from './connection-context.ts';
import { ConnectionWriter, type WriterOwner } from './connection-writer.ts';
import { countUnauthenticated, type Dispatcher } from './dispatcher.ts';
import type { Handshake } from './handshake.ts';
import { InputCounters } from './input-counters.ts';
import { Keepalive } from './keepalive.ts';
import { CLOSE_HANDLING_MS, type ConnectionLimits, MESSAGE_QUEUE_LIMIT } from './limits.ts';
import { ResumeGrace } from './resume-grace.ts';
import type { Transport } from './transport.ts';
import type { Welcome } from './welcome.ts';

export interface ConnectionDeps extends AttachmentDeps {
  readonly authenticator: Pick<Authenticator, 'message' | 'renewal'>;
  readonly dispatcher: Dispatcher;
  /** Creates the handler of the messages of another protocol; undefined for the formats of Tollgate's own. */
  readonly createRpcDispatcher: (format: FormatName, sendFrame: (frame: string) => void) => RpcDispatcher | undefined;
  readonly welcome: Welcome;
  /** The set of connections of the node; notified of each change of state. */
  readonly hub: { update(connection: Connection): void; finishing(handled: Promise<void>): void };
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly refusals: RefusalSink;
  readonly nodeId: string;
  readonly limits: ConnectionLimits;
}

/** The last event that the client received, as stated in its handshake. */
export interface ResumePoint {
  readonly after: number;
  readonly epoch: string;
}

export interface OpenOptions {
  readonly resumeFrom: ResumePoint | undefined;
  /** Settles when the transport can send replayed events; undefined if it can at once. */
  readonly writable?: Promise<void>;
  readonly trace: TraceParent | undefined;
}

/**
 * Server-side state of one client connection, independent of its transport.
 *
 *     handshake ──open(identity)──► live
 *         └─open(undefined), only /ws──► unauthenticated ──authenticate()──► live
 *     any state ──close() or drain() by the server──► closed, exactly once
 *     any state ──onClose() by the socket──► disconnected ──messages handled, or CLOSE_HANDLING_MS──► closed
 *
 * Messages wait until `open` has sent the welcome. A node has many idle connections, so a connection has no closures,
 * promises or signals of its own while it is idle. Every method rechecks `closed` after an `await`, because the socket
 * may have closed meanwhile. Messages that arrived before the socket closed still take effect; their replies are
 * dropped.
 */
export class Connection implements ConnectionContext, AttachmentEvents, WriterOwner, SerialQueueOwner {
  readonly connectionId = newId('ws');
  threadId = newId('thread');
  handshakeTrace: TraceParent | undefined;
  readonly writer: ConnectionWriter;
  readonly counters = new InputCounters();
  readonly rpc: RpcDispatcher | undefined;
  readonly #deps: ConnectionDeps;
  readonly #transport: Transport;
  /** Of the transport, which releases it when its socket closes. */
  readonly handshake: Handshake;
  #isDisconnected = false;
  #isClosed = false;
  /** The welcome was sent. */
  #isOpen = false;
  /** Processes the messages one after the other, once the connection is open. */
  readonly #queue: SerialQueue;
  readonly #resumeGrace: ResumeGrace;
  readonly #openedAt: number;
  readonly #keepalive: Keepalive;
  #attachment: Attachment | undefined;
  #isReading = false;

  constructor(deps: ConnectionDeps, transport: Transport, handshake: Handshake) {
    this.#deps = deps;
    this.#transport = transport;
    this.handshake = handshake;
    this.writer = new ConnectionWriter(transport, deps.clock, this);
    this.#queue = new SerialQueue(MESSAGE_QUEUE_LIMIT, this, { paused: true });
    this.rpc = deps.createRpcDispatcher(transport.format, (frame) => this.writer.sendFrame(frame));
    this.#resumeGrace = new ResumeGrace(deps.clock);
    this.#openedAt = deps.clock.now();
    this.#keepalive = new Keepalive(deps.limits, this.#openedAt);
    deps.hub.update(this);
  }

  get closed(): boolean {
    return this.#isClosed;
  }

  /** Whether the socket has closed. Messages that arrived before may still be waiting. */
  get disconnected(): boolean {
    return this.#isDisconnected;
  }

  /** As the registry stores it. */
  get details(): ConnectionDetails {
    const { endpoint, stream } = this.#transport;
    const opened = { node: this.#deps.nodeId, endpoint, opened_at: new Date(this.#openedAt).toISOString() };
    return stream === undefined ? opened : { ...opened, stream };
  }

  /** Undefined before authentication. The hub renews its lease. */
  get attachment(): Attachment | undefined {
    return this.#attachment;
  }

  get endpoint(): string {
    return this.#transport.endpoint;
  }

  get identity(): Identity | undefined {
    return this.#attachment?.identity;
  }

  get degraded(): boolean {
    return this.#attachment?.token.state === 'degraded';
  }

  get transportName(): 'websocket' | 'socketio' | 'mcp' {
    if (this.#transport.format === 'socketio') return 'socketio';
    return this.#transport.format === 'jsonrpc' ? 'mcp' : 'websocket';
  }

  /**
   * Ends the handshake: admits the user, if any, and sends the welcome. Then the waiting messages are processed, after
   * the replay that the handshake requested.
   * @param identity undefined on an endpoint where the client may authenticate by message
   * @returns false when the socket closed meanwhile
   * @throws TollgateError as `Attachment.attach`
   */
  async open(identity: Identity | undefined, { resumeFrom, writable, trace }: OpenOptions): Promise<boolean> {
    if (this.closed) return false;
    this.handshakeTrace = trace;
    const admission = identity && (await this.#attach(identity, resumeFrom !== undefined));
    if (identity && !admission) return false;
    const user = this.identity && { identity: this.identity, threadId: this.threadId, admission };
    const welcome = this.#deps.welcome.established(this.connectionId, this.#transport, user);
    this.writer.send('connection_established', welcome);
    this.#isOpen = true;
    void this.#startReading(resumeFrom, writable);
    return true;
  }

  // Callbacks of the transport

  /** A message, in the order of receipt. */
  receive(message: IncomingMessage): void {
    if (this.disconnected) return;
    this.markAlive();
    const { dispatcher } = this.#deps;
    if (!this.#queue.add(() => dispatcher.dispatch(this, message))) dispatcher.refuse(this, message);
  }

  /** An unreadable frame. Its error follows the answers to earlier messages. */
  reject(error: TollgateError, replyTo: ReplyTo): void {
    if (this.disconnected) return;
    this.markAlive();
    if (!this.identity) countUnauthenticated(this);
    const { dispatcher } = this.#deps;
    const reject = async () => dispatcher.reject(this, error, replyTo);
    if (!this.#queue.add(reject)) void reject();
  }

  /** Size of a frame, reported before the frame is parsed: the bytes before authentication are bounded. */
  countBytes(bytes: number): void {
    if (this.disconnected || this.identity) return;
    if (!this.counters.addUnauthenticatedBytes(bytes)) this.close(new TollgateError('NO_TOKEN'));
  }

  /** The client sent something, even if it is not a message, such as a pong. */
  markAlive(): void {
    this.#keepalive.markAlive(this.#deps.clock.now());
  }

  /**
   * The socket has closed, from either side. Releases the lease at once. Messages that arrived before are handled, for
   * at most `CLOSE_HANDLING_MS`; until then a revocation or a block still ends the connection.
   */
  onClose(): void {
    if (this.disconnected) return;
    this.#isDisconnected = true;
    if (!this.#isOpen || this.#queue.length === 0) return this.#finish();
    this.#leave();
    const { clock, logger, hub } = this.#deps;
    const ended = new Promise<void>((resolve) => {
      const cancel = clock.after(CLOSE_HANDLING_MS, () => {
        logger.warn({ ...logContext(this), messages: this.#queue.length }, 'messages of a closed connection dropped');
        resolve();
      });
      void this.#queue.idle().then(cancel).then(resolve);
    });
    hub.finishing(ended.then(() => this.#finish()));
  }

  /** Handlers report their errors to the client. Any other error leaves the connection in an unknown state. */
  onTaskFailed(error: unknown): void {
    this.close(toTollgateError(error));
  }

  // Operations of handlers

  /** Authenticates by message. A failure closes the connection, as it does in the handshake. */
  async authenticate(presented: InBandCredential): Promise<Reply> {
    try {
      const identity = await this.handshake.authenticate(() => this.#identify(presented));
      if (this.identity) {
        this.#attachment?.token.handOver(identity);
        return this.#authSuccess(this.identity, undefined);
      }
      const admission = this.closed ? undefined : await this.#attach(identity, false);
      return admission && this.identity && this.#authSuccess(this.identity, admission);
    } catch (thrown) {
      this.close(toTollgateError(thrown));
      return undefined;
    }
  }

  async renewToken(token: string | undefined, refreshToken?: string): Promise<Reply> {
    try {
      if (token === undefined) await this.#attachment?.token.requestRefresh();
      else await this.#attachment?.acceptToken(token, refreshToken);
    } catch (thrown) {
      const error = toTollgateError(thrown);
      if (error.code !== 'USER_MISMATCH') throw error;
      this.close(error);
    }
    this.#deps.hub.update(this);
    if (!this.identity) return undefined;
    const { token_expires_at } = this.#deps.welcome.identity(this.identity);
    return { type: token === undefined ? 'token_refresh_scheduled' : 'token_refreshed', fields: { token_expires_at } };
  }

  async resume(after: number, epoch: string, { allowed }: MessageLimit): Promise<Reply> {
    let reply: Reply;
    await this.#attachment?.cursor.resume({ after, epoch, allowed }, ({ resumed, ...fields }) => {
      this.#deps.metrics.resumes.inc({ result: 'reason' in fields ? fields.reason : 'resumed' });
      reply = { type: resumed ? 'resumed' : 'resume_failed', fields, sentAsEvent: true };
      this.writer.send(reply.type, fields);
    });
    this.endResumeGrace();
    return reply;
  }

  pauseEvents(): () => void {
    const cursor = this.#attachment?.cursor;
    cursor?.pause();
    return () => cursor?.unpause();
  }

  endResumeGrace(): void {
    this.#resumeGrace.end();
  }

  // AttachmentEvents

  /** Never throws: an event that cannot be encoded ends only this connection. */
  deliver(entry: LogEntry): void {
    this.#deps.metrics.delivered.inc();
    try {
      if (this.rpc?.deliver) this.rpc.deliver(entry);
      else this.writer.sendEntry(entry);
    } catch (error) {
      this.onError(error);
    }
  }

  onReplayGap(loss: ReplayGap): void {
    this.#deps.metrics.resumes.inc({ result: loss.reason });
    this.rpc?.onReplayGap?.({ ...loss });
    this.writer.send('resume_failed', { ...loss });
  }

  onOverflow(): void {
    this.close(new TollgateError('SLOW_CONSUMER'));
  }

  writable(): Promise<boolean> {
    return this.writer.untilDrained();
  }

  onError(cause: unknown): void {
    this.close(new TollgateError('INTERNAL_ERROR', { cause }));
  }

  onTerminated(code: ErrorCode, reason = terminationReason(code)): void {
    if (code === 'CONNECTION_LIMIT_EXCEEDED' && !this.closed) this.#deps.metrics.evictions.inc();
    // A close by an administrator is no refusal: the user may connect again.
    if (code !== 'CONNECTION_CLOSED' && !this.closed && this.identity) {
      this.#deps.refusals.refused(this.identity.userId, new TollgateError(code));
    }
    if (reason && this.#attachment) this.writer.send('session_terminated', { reason });
    this.close(new TollgateError(code));
  }

  onTokenChanged(type: ServerEventType, fields: Fields): void {
    this.writer.send(type, fields);
    if (this.#attachment) this.#deps.hub.update(this);
  }

  onPlanChanged(): void {
    // Before the attachment is set, the welcome has not been sent yet, and it contains the plan.
    if (!this.identity) return;
    this.#deps.hub.update(this);
    const { plan, permissions } = this.#deps.welcome.identity(this.identity);
    const limits = this.#deps.welcome.limits(plan, this.#transport.format);
    this.writer.send('plan_changed', { plan, permissions, limits });
  }

  onPublished(type: PublishedEvent, fields: Fields): void {
    if (this.#attachment) this.writer.send(type, fields);
  }

  // Timers and shutdown, run by the hub

  /** The clock jumped by `ms` (negative: backwards); the process received nothing meanwhile. */
  onClockJump(now: number, ms: number): void {
    this.#keepalive.onClockJump(now, ms);
    this.writer.onClockJump();
  }

  /** Runs about once per second: heartbeat, idle timeout, maximum age, token expiry, unread output. */
  tick(now: number): void {
    if (this.closed) return;
    const isBusy = this.counters.outOfOrder > 0 || this.#queue.length > 0;
    const due = this.#keepalive.due(now, isBusy);
    if (due === 'silence') return this.close(new TollgateError('CONNECTION_TIMEOUT'));
    if (due === 'old_age') return this.drain(0);
    if (due === 'heartbeat') {
      this.#transport.ping();
      this.writer.send('heartbeat', { connection_id: this.connectionId });
    }
    this.#attachment?.token.tick(now);
    this.writer.tick(now);
  }

  /** Sends the error, closes the socket and releases all resources. Idempotent; later frames are ignored. */
  close(error: TollgateError): void {
    if (error.code === 'INTERNAL_ERROR')
      this.#deps.logger.error({ ...logContext(this), err: error.cause }, 'connection failed');
    if (!this.#attachment && !this.closed) this.handshake.recordRefusal(error);
    this.#end(error.row.close ?? 1008, error.code, () => this.#transport.sendError(error));
  }

  /** Asks the client to reconnect to another node and closes the connection. */
  drain(retryAfterMs: number): void {
    const fields = { retry_after_ms: retryAfterMs };
    this.#end(1012, 'SERVER_DRAINING', () => this.#transport.send('server_draining', fields));
  }

  /** Sends the last message past the connection writer, whose exceeded bound may be the reason for the close. */
  #end(code: number, reason: ErrorCode, sendReason: () => void): void {
    if (!this.disconnected) {
      this.#isDisconnected = true;
      this.#deps.metrics.closes.inc({ code: reason });
      sendReason();
      this.#transport.close(code, reason);
    }
    this.#finish();
  }

  #finish(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#leave();
    this.#attachment?.detach();
    this.#read();
  }

  #read(): void {
    if (this.#isReading) return;
    this.#isReading = true;
    this.#queue.start();
  }

  /** Releases everything that handlers of waiting messages do not need. */
  #leave(): void {
    this.handshake.endDeadline();
    this.endResumeGrace();
    this.#attachment?.leave();
    this.#deps.hub.update(this);
  }

  /** Returns undefined when the socket closed meanwhile. */
  async #attach(identity: Identity, resumes: boolean): Promise<Admission | undefined> {
    const { logger, hub, refusals } = this.#deps;
    const attachment = new Attachment(this.#deps, { connectionId: this.connectionId, identity }, this);
    const admission = await attachment.attach().catch((error: unknown) => {
      refusals.refused(identity.userId, toTollgateError(error));
      throw error;
    });
    if (this.closed || !admission) {
      attachment.detach();
      return undefined;
    }
    this.handshake.endDeadline();
    this.#attachment = attachment;
    if (this.disconnected) attachment.leave();
    hub.update(this);
    if (logger.isLevelEnabled('debug')) logger.debug(logContext(this), 'admitted');
    this.#resumeGrace.start(() => attachment.cursor.unpause(), resumes);
    return admission;
  }

  /** @throws TollgateError of the authentication rows, USER_MISMATCH for another user than that of the connection */
  async #identify(presented: InBandCredential): Promise<Identity> {
    const found = await this.#deps.authenticator.message(presented, this.identity);
    if (this.identity && found.userId !== this.identity.userId) throw new TollgateError('USER_MISMATCH');
    return found;
  }

  /** After the welcome, because Socket.IO cannot replay before it has confirmed the connection to the client. */
  async #startReading(resumeFrom: ResumePoint | undefined, writable: Promise<void> | undefined): Promise<void> {
    try {
      if (resumeFrom) await writable;
      if (resumeFrom && !this.disconnected) await this.resume(resumeFrom.after, resumeFrom.epoch, NO_MESSAGE_LIMIT);
    } catch (error) {
      this.close(toTollgateError(error));
    }
    this.#attachment?.token.welcomed();
    this.#read();
  }

  #authSuccess(identity: Identity, admission: Admission | undefined): Reply {
    const user = { identity, threadId: this.threadId, admission };
    const fields = this.#deps.welcome.authenticated(this.connectionId, this.#transport, user);
    return { type: 'auth_success', fields, onSent: () => this.#attachment?.token.welcomed() };
  }
}
