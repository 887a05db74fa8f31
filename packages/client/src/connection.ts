import { type BackoffOptions, backoffMs } from './backoff.ts';
import type { Clock } from './clock.ts';
import { ConnectionStoppedError, errorInit, TollgateError } from './errors.ts';
import type { Identity, Limits } from './events.ts';
import { isRetryableCode } from './protocol.ts';
import type { StreamPosition } from './stream-position.ts';
import { type GetToken, TokenSource } from './token-source.ts';
import type { CloseReason, Fields, OpenTransport, Transport, TransportHandlers } from './transports/transport.ts';

/**
 *     idle ──connect──► connecting ──welcome──► connected
 *                           ▲                      │ lost
 *                           └──── waiting ◄────────┘
 *     any ──close() or a final refusal──► stopped ──connect──► connecting
 */
export type ConnectionState = 'idle' | 'connecting' | 'connected' | 'waiting' | 'stopped';

export interface ConnectionOptions {
  readonly url: string;
  readonly open: OpenTransport;
  readonly getToken: GetToken;
  readonly position: StreamPosition;
  readonly backoff: BackoffOptions;
  readonly clock: Clock;
  readonly random: () => number;
}

export interface ConnectionHandlers {
  /** A durable event, once and in order. */
  event(type: string, fields: Fields): void;
  /** Any other message of the gateway. */
  message(type: string, fields: Fields): void;
  connected(identity: Identity): void;
  state(state: ConnectionState): void;
  /** A failure after which the connection tries again. */
  failed(error: TollgateError): void;
  /** The connection does not try again. */
  stopped(error: TollgateError): void;
  /** Some events are no longer in the log. */
  lost(reason: string): void;
  /** The gateway has refreshed the access token, and the refresh token if it has one. */
  token(token: string, refreshToken: string | undefined): void;
}

/** Timeout from the attempt to the welcome. The gateway ends a handshake after ten seconds. */
const WELCOME_MS = 15_000;
/** Timeout of the answer to a liveness check. */
const PONG_MS = 5_000;
/** Maximum number of consecutive resumes after a gap. Then the client continues with live events. */
const MAX_RESYNCS = 3;
/**
 * Messages whose `seq` is the head of the log. Every other message with a `seq` is a durable event, also one of a type
 * that a backend or a newer gateway has chosen.
 */
const WELCOMES = new Set(['connection_established', 'auth_success']);
/** How often the position is written to the storage. */
const SAVE_MS = 250;
/** Refusals that a fresh token can cure. */
const TOKEN_CODES = new Set(['TOKEN_EXPIRED', 'VALIDATION_FAILED', 'TOKEN_REVOKED', 'NO_TOKEN']);

/** Keeps one connection of a user: connects, resumes, renews its token, and reconnects where the protocol allows it. */
export class Connection {
  readonly #options: ConnectionOptions;
  readonly #handlers: ConnectionHandlers;
  readonly #tokens: TokenSource;
  #state: ConnectionState = 'idle';
  #transport: Transport | undefined;
  /** Distinguishes attempts: callbacks of an earlier one are ignored. */
  #attempt = 0;
  #failures = 0;
  #resyncs = 0;
  /** Between a gap and the end of its replay: only the next event counts, because the replay repeats the others. */
  #isResyncing = false;
  #retryAfterMs: number | undefined;
  /** The access token of the handshake. */
  #presented = '';
  #limits: Limits | undefined;
  #lastReceivedAt = 0;
  #cancelTimer = () => {};
  #cancelWatchdog = () => {};
  #cancelSave: (() => void) | undefined;

  constructor(options: ConnectionOptions, handlers: ConnectionHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.#tokens = new TokenSource(options.getToken, options.clock);
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Does nothing while the connection is connecting, connected or waiting. */
  connect(): void {
    if (this.#state === 'idle' || this.#state === 'stopped') void this.#open();
  }

  /** Sends a message if connected, and returns whether it was sent. */
  send(type: string, fields: Fields): boolean {
    if (this.#state !== 'connected' || !this.#transport) return false;
    this.#transport.send(type, fields);
    return true;
  }

  /**
   * Call when the device may have slept or the network has changed: a waiting connection connects at once, and a
   * connected one checks that it is still alive.
   */
  wake(): void {
    if (this.#state === 'waiting') {
      this.#cancelTimer();
      void this.#open();
    } else if (this.#state === 'connected') this.#checkAlive();
  }

  close(): void {
    this.#stop(new ConnectionStoppedError('CLOSED', { message: 'The client was closed.', retryable: false }));
  }

  async #open(): Promise<void> {
    this.#attempt += 1;
    const attempt = this.#attempt;
    this.#setState('connecting');
    let token: string | undefined;
    try {
      token = await this.#tokens.current();
    } catch (cause) {
      if (attempt !== this.#attempt) return;
      const message = `getToken failed: ${cause}`;
      return this.#retry(new TollgateError('SIGNED_OUT', { message, retryable: true, cause }));
    }
    if (attempt !== this.#attempt) return;
    if (token === undefined) {
      return this.#stop(new ConnectionStoppedError('SIGNED_OUT', { message: 'getToken returned no token.' }));
    }
    this.#presented = token;
    const { url, position, clock } = this.#options;
    this.#cancelTimer = clock.after(WELCOME_MS, () => this.#drop('no welcome'));
    this.#isResyncing = position.current !== undefined;
    const handlers: TransportHandlers = {
      message: (type, fields) => {
        if (attempt === this.#attempt) this.#received(type, fields);
      },
      closed: (reason) => {
        if (attempt === this.#attempt) this.#closed(reason);
      },
    };
    try {
      this.#transport = this.#options.open({ url, token, position: position.current }, handlers);
    } catch (cause) {
      // A URL that is none, or a runtime without WebSocket: no later attempt can succeed.
      const code = cause instanceof TollgateError ? cause.code : 'CANNOT_CONNECT';
      this.#stop(new ConnectionStoppedError(code, { message: String(cause), retryable: false, cause }));
    }
  }

  #received(type: string, fields: Fields): void {
    this.#lastReceivedAt = this.#options.clock.now();
    if (typeof fields.seq === 'number' && !WELCOMES.has(type)) return this.#durable(type, fields);
    switch (type) {
      case 'connection_established':
        if (fields.authenticated === true) this.#welcomed(fields);
        return;
      case 'resumed':
        this.#isResyncing = false;
        this.#resyncs = 0;
        return;
      case 'resume_failed':
        return this.#resumeFailed(fields);
      case 'token_refreshed':
        if (typeof fields.access_token === 'string') {
          this.#tokens.replace(fields.access_token, fields.token_expires_at, fields.refresh_token);
          this.#handlers.token(fields.access_token, this.#tokens.refreshToken);
        }
        return;
      case 'token_refresh_failed':
      case 'token_degraded':
        return void this.#presentToken();
      case 'server_draining':
        this.#retryAfterMs = Number(fields.retry_after_ms) || undefined;
        return;
      case 'heartbeat':
      case 'pong':
        return;
      default:
        this.#handlers.message(type, fields);
    }
  }

  #welcomed(fields: Fields): void {
    const { position, clock } = this.#options;
    this.#cancelTimer();
    this.#failures = 0;
    this.#tokens.accepted(fields.token_expires_at);
    this.#limits = fields.limits as Limits;
    if (!position.current) position.set({ after: Number(fields.seq), epoch: String(fields.epoch) });
    this.#lastReceivedAt = clock.now();
    this.#watch();
    this.#setState('connected');
    // Each connection hands over the refresh token of its session, and so receives the next one.
    if (this.#tokens.refreshToken !== undefined) this.#sendToken(this.#presented);
    this.#handlers.connected({
      userId: String(fields.user_id),
      plan: String(fields.plan),
      permissions: Array.isArray(fields.permissions) ? fields.permissions.map(String) : [],
      threadId: String(fields.thread_id),
      limits: this.#limits,
    });
  }

  #durable(type: string, fields: Fields): void {
    const { position } = this.#options;
    const arrival = position.arrive(Number(fields.seq));
    if (arrival === 'deliver') {
      this.#saveSoon();
      return this.#handlers.event(type, fields);
    }
    if (arrival === 'gap' && !this.#isResyncing) this.#resync();
  }

  /** The log lost events, or starts again: continues with the oldest event that it still has. */
  #resumeFailed({ reason, oldest_seq, epoch }: Fields): void {
    const after = Math.max(0, Number(oldest_seq) - 1) || 0;
    this.#options.position.set({ after, epoch: String(epoch) });
    this.#handlers.lost(String(reason));
    this.#resync();
  }

  #resync(): void {
    const { position } = this.#options;
    this.#resyncs += 1;
    // A log that is trimmed faster than it is read: a new connection starts from the head.
    if (this.#resyncs > MAX_RESYNCS) return this.#drop('the event log is trimmed faster than it can be read');
    this.#isResyncing = true;
    if (position.current) this.#transport?.send('resume', { ...position.current });
  }

  /** Presents a fresh token in band, because the gateway could not refresh the session's. */
  async #presentToken(): Promise<void> {
    const attempt = this.#attempt;
    try {
      const token = await this.#tokens.fresh();
      if (token !== undefined && attempt === this.#attempt) this.#sendToken(token);
    } catch (cause) {
      this.#handlers.failed(
        new TollgateError('SIGNED_OUT', { message: `getToken failed: ${cause}`, retryable: true, cause }),
      );
    }
  }

  /** The message hands over a refresh token on every transport; a WebSocket's handshake cannot carry one. */
  #sendToken(token: string): void {
    const { refreshToken } = this.#tokens;
    this.send('token_refresh', refreshToken === undefined ? { token } : { token, refresh_token: refreshToken });
  }

  #closed(reason: CloseReason): void {
    const { code, detail } = reason;
    this.#leave();
    const error = new ConnectionStoppedError(code ?? 'DISCONNECTED', {
      ...errorInit({ message: detail }),
      retryable: reason.retryable ?? (code === undefined ? true : isRetryableCode(code)),
      retryAfterMs: reason.retryAfterMs,
    });
    this.#retryAfterMs ??= reason.retryAfterMs;
    // The token may have expired or been replaced since the last attempt. A token that was fetched for this attempt
    // and is refused stays refused.
    if (code !== undefined && TOKEN_CODES.has(code) && this.#tokens.invalidate()) {
      this.#failures += 1;
      return void this.#open();
    }
    if (reason.final || (code !== undefined && !error.retryable)) return this.#stop(error);
    this.#retry(error);
  }

  /** Ends a connection that gives no sign of life, and reconnects. */
  #drop(detail: string): void {
    this.#transport?.close();
    this.#closed({ code: undefined, retryable: true, retryAfterMs: undefined, detail, final: false });
  }

  #retry(error: TollgateError): void {
    const { backoff, clock, random } = this.#options;
    const spread = backoffMs(this.#failures, backoff, random);
    // The gateway spreads the clients of a draining node itself, by different delays.
    const delayMs = this.#retryAfterMs === undefined ? spread : Math.max(this.#retryAfterMs, 0);
    this.#failures += 1;
    this.#retryAfterMs = undefined;
    this.#cancelTimer = clock.after(delayMs, () => void this.#open());
    this.#setState('waiting');
    this.#handlers.failed(error);
  }

  #stop(error: TollgateError): void {
    if (this.#state === 'stopped') return;
    this.#attempt += 1;
    const transport = this.#transport;
    this.#leave();
    transport?.close();
    this.#failures = 0;
    this.#setState('stopped');
    this.#handlers.stopped(error);
  }

  #leave(): void {
    this.#transport = undefined;
    this.#isResyncing = false;
    this.#resyncs = 0;
    this.#cancelTimer();
    this.#cancelWatchdog();
    this.#cancelSave?.();
    this.#cancelSave = undefined;
    this.savePosition();
  }

  /** Drops a connection on which two heartbeats are missing: its socket may be half open. */
  #watch(): void {
    this.#cancelWatchdog();
    const intervalMs = (this.#limits?.heartbeat_interval ?? 30) * 1_000;
    this.#cancelWatchdog = this.#options.clock.after(intervalMs, () => {
      if (this.#options.clock.now() - this.#lastReceivedAt > 2 * intervalMs) return this.#drop('no heartbeat');
      this.#watch();
    });
  }

  #checkAlive(): void {
    const { clock } = this.#options;
    const askedAt = clock.now();
    const attempt = this.#attempt;
    this.send('ping', { timestamp: askedAt });
    clock.after(PONG_MS, () => {
      if (attempt === this.#attempt && this.#lastReceivedAt < askedAt) this.#drop('no answer to a ping');
    });
  }

  #saveSoon(): void {
    this.#cancelSave ??= this.#options.clock.after(SAVE_MS, () => {
      this.#cancelSave = undefined;
      this.savePosition();
    });
  }

  /** A storage that fails costs the position across page loads, nothing else. */
  savePosition(): void {
    try {
      this.#options.position.save();
    } catch (cause) {
      this.#handlers.failed(new TollgateError('POSITION_NOT_SAVED', { retryable: true, cause }));
    }
  }

  #setState(state: ConnectionState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#handlers.state(state);
  }
}
