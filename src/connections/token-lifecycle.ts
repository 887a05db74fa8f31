import type { Authenticator } from '../auth/authenticator.ts';
import {
  type Registration,
  type SessionToken,
  sessionEntryOf,
  sessionOf,
  type TokenSessionRef,
  type TokenSessions,
} from '../auth/token-refresh/token-sessions.ts';
import type { Clock } from '../lib/clock.ts';
import type { Listeners } from '../lib/listeners.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { HandedOverToken, Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import {
  type Refusal,
  type TerminationReason,
  type TokenControl,
  type TokenState,
  terminationReason,
} from '../protocol/token-lifecycle.ts';
import type { SessionEntry, TokenRegistration } from '../redis/token-registration.ts';

/** Change of a connection's token, for metrics. */
export type TokenEvent =
  | { readonly type: 'registered' | 'refreshed' | 'refresh_failed' | 'degraded'; readonly connectionId: string }
  | { readonly type: 'terminated'; readonly connectionId: string; readonly reason: TerminationReason }
  | { readonly type: 'unregistered'; readonly connectionId: string; readonly lifetimeMs: number };

export interface TokenLifecycleDeps {
  readonly authenticator: Pick<Authenticator, 'renewal'>;
  readonly tokenSessions: Pick<
    TokenSessions,
    'register' | 'registration' | 'registered' | 'unregister' | 'current' | 'fromControl' | 'requestRefresh'
  >;
  readonly tokenEvents: Listeners<TokenEvent>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A registration that is part of an admission. */
export interface PendingRegistration {
  readonly ref: TokenSessionRef;
  readonly handedOver: HandedOverToken | undefined;
  readonly token: TokenRegistration;
}

/** What the token lifecycle needs from its attachment. */
export interface TokenOwner {
  readonly connectionId: string;
  readonly identity: Identity;
  /** Replaces the identity. Returns false when the new one has been revoked. */
  renew(identity: Identity): boolean;
  sendTokenEvent(type: 'token_refreshed' | 'token_refresh_failed' | 'token_degraded', fields: Fields): void;
  terminate(code: Refusal, reason: TerminationReason): void;
}

/**
 * Lifecycle of one connection's token. Workers refresh the token (`workers/refresh-tokens.ts`) and publish the result
 * on the user channel. After a possible loss of such a message, the connection looks up the token in Redis.
 *
 * States: `active` ⇄ `refresh_failed` → `degraded` → terminated `graceMs` after the token's expiry. A newer token leads
 * from any state to `active`; a refusal by the auth service terminates from any state. A token without refresh (of a
 * service or the development bypass) changes from `active` to `degraded` at its expiry.
 */
export class TokenLifecycle {
  readonly #deps: TokenLifecycleDeps;
  readonly #owner: TokenOwner;
  readonly #graceMs: number;
  /** Login session of the token. It changes when the client presents a token of another session. */
  #ref: TokenSessionRef;
  readonly #registeredAt: number;
  #state: TokenState = 'active';
  #welcomed = false;
  #ended = false;
  /** Token that a refresh delivered before the welcome was sent. */
  #early: SessionToken | undefined;
  /** Refresh token of the client until Redis has stored it. Later it may have been used, so it is not stored again. */
  #handedOver: HandedOverToken | undefined;
  /** Family of the refresh tokens that this connection receives. */
  #family: string | undefined;
  /** Token expiry for which the store has already been queried for a newer token. */
  #lookedUpFor = 0;

  constructor(deps: TokenLifecycleDeps, owner: TokenOwner, graceMs: number) {
    this.#deps = deps;
    this.#owner = owner;
    this.#graceMs = graceMs;
    this.#registeredAt = deps.clock.now();
    this.#ref = sessionOf(owner.identity);
    this.#handedOver = owner.identity.handedOver;
    this.#emit('registered');
  }

  get state(): TokenState {
    return this.#state;
  }

  /**
   * Returns the registration of the token for refreshes, for the request of the admission; undefined if the token is
   * not refreshed. `registered` receives the reply.
   */
  registration(): PendingRegistration | undefined {
    const { sealedToken: sealed, tokenExpiresAt: expiresAt } = this.#owner.identity;
    if (sealed === undefined || this.#ended) return undefined;
    const [ref, handedOver] = [this.#ref, this.#handedOver];
    return { ref, handedOver, token: this.#deps.tokenSessions.registration(ref, { sealed, expiresAt, handedOver }) };
  }

  /** Applies the reply to a registration that was part of an admission. Never throws. */
  async registered({ ref, handedOver }: PendingRegistration, reply: readonly unknown[]): Promise<void> {
    try {
      await this.#onRegistered(ref, handedOver, this.#deps.tokenSessions.registered(ref, reply));
    } catch (error) {
      this.#log('warn', error, 'token registration failed, the token will not be refreshed');
    }
  }

  /**
   * Stores the refresh token that the client handed over with a token of the session. Never throws, as `register`.
   * @param identity of that token; without effect if it has no refresh token or another session
   */
  handOver(identity: Identity): void {
    if (!identity.handedOver || sessionOf(identity).session !== this.#ref.session) return;
    this.#handedOver = identity.handedOver;
    void this.#register(identity);
  }

  async #register({ sealedToken: sealed, tokenExpiresAt: expiresAt }: Identity): Promise<void> {
    if (sealed === undefined || this.#ended) return;
    const ref = this.#ref;
    const handedOver = this.#handedOver;
    try {
      const { tokenSessions } = this.#deps;
      const presented = { sealed, expiresAt, handedOver };
      const registered = await tokenSessions.register(ref, this.#owner.connectionId, presented);
      await this.#onRegistered(ref, handedOver, registered);
    } catch (error) {
      this.#log('warn', error, 'token registration failed, the token will not be refreshed');
    }
  }

  async #onRegistered(
    ref: TokenSessionRef,
    handedOver: HandedOverToken | undefined,
    { newer, family }: Registration,
  ): Promise<void> {
    if (this.#handedOver === handedOver) this.#handedOver = undefined;
    if (family !== undefined && ref.session === this.#ref.session) this.#family = family;
    // The connection may have closed meanwhile. Its registration must not stay in Redis.
    if (this.#ended) return this.#unregister(ref);
    if (newer) await this.#onRefreshed(ref, newer);
  }

  /** Called after the welcome was sent. Token events must not precede it. */
  welcomed(): void {
    this.#welcomed = true;
    if (this.#early) void this.#adopt(this.#ref, this.#early);
    this.#early = undefined;
  }

  /**
   * Called after the client presented a newer token and the identity was replaced. A token of another login session
   * moves only this connection to that session; the other connections still end with the old one.
   */
  async renewed(): Promise<void> {
    this.#enterState('active', 'refreshed');
    const previous = this.#ref;
    const { identity } = this.#owner;
    this.#ref = sessionOf(identity);
    this.#handedOver = identity.handedOver;
    if (this.#ref.session !== previous.session) this.#family = undefined;
    if (this.#ref.session !== previous.session && identity.sealedToken !== undefined) this.#unregister(previous);
    await this.#register(identity);
  }

  /** Requests a refresh now. @throws TollgateError FORMAT_ERROR when this token cannot be refreshed, OVERLOADED */
  async requestRefresh(): Promise<void> {
    if (await this.#deps.tokenSessions.requestRefresh(this.#ref)) return;
    throw new TollgateError('FORMAT_ERROR', { text: '"token": This token cannot be refreshed. Send a newer one.' });
  }

  /** Handles a control message of a worker. Messages for other login sessions are ignored. */
  control(control: TokenControl): void {
    if (control.session !== this.#ref.session || this.#ended) return;
    if (control.control === 'session_ended')
      return this.#terminate(control.code, terminationReason(control.code) ?? 'refused');
    if (control.control === 'token_failed') return this.#failed(control);
    const token = this.#deps.tokenSessions.fromControl(this.#ref, control);
    if (token) void this.#onRefreshed(this.#ref, token);
  }

  /** Reads the current token of the session from Redis, in case a control message was lost. */
  async lookUp(): Promise<void> {
    if (this.#owner.identity.sealedToken === undefined || this.#ended) return;
    const ref = this.#ref;
    try {
      const kept = await this.#deps.tokenSessions.current(ref);
      if (kept) await this.#onRefreshed(ref, kept);
    } catch (error) {
      this.#log('debug', error, 'token lookup failed');
    }
  }

  /** Runs about once per second. */
  tick(now: number): void {
    const { tokenExpiresAt } = this.#owner.identity;
    if (now < tokenExpiresAt || this.#ended) return;
    if (now >= tokenExpiresAt + this.#graceMs) return this.#terminate('TOKEN_EXPIRED', 'degraded_timeout');
    if (this.#lookedUpFor !== tokenExpiresAt) {
      this.#lookedUpFor = tokenExpiresAt;
      void this.lookUp().then(() => this.#degradeIfExpired());
    }
  }

  /**
   * Session entry of the token that must be removed with the lease of the connection; undefined if none was registered.
   */
  get sessionEntry(): SessionEntry | undefined {
    return this.#owner.identity.sealedToken === undefined ? undefined : sessionEntryOf(this.#ref);
  }

  /** Called when the connection closes; the release of its lease removes the token. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deps.tokenEvents.emit({
      type: 'unregistered',
      connectionId: this.#owner.connectionId,
      lifetimeMs: this.#deps.clock.now() - this.#registeredAt,
    });
  }

  async #onRefreshed(ref: TokenSessionRef, token: SessionToken): Promise<void> {
    if (this.#welcomed) await this.#adopt(ref, token);
    else this.#early = token;
  }

  /** @param ref the login session of the token; this connection may have changed to another one meanwhile */
  async #adopt(ref: TokenSessionRef, { token, expiresAt, refreshes, refreshToken }: SessionToken): Promise<void> {
    if (expiresAt <= this.#owner.identity.tokenExpiresAt) return;
    let identity: Identity;
    try {
      identity = await this.#deps.authenticator.renewal(token, this.#owner.identity);
    } catch (error) {
      this.#log('warn', error, 'refreshed token was rejected');
      return;
    }
    const current = this.#owner.identity;
    if (ref.session !== this.#ref.session) return;
    if (this.#ended || identity.userId !== current.userId || identity.tokenExpiresAt <= current.tokenExpiresAt) return;
    if (!this.#owner.renew(identity)) return;
    this.#enterState('active', 'refreshed');
    this.#owner.sendTokenEvent('token_refreshed', {
      access_token: token,
      token_expires_at: iso(identity.tokenExpiresAt),
      refresh_count: refreshes,
      ...(refreshToken && refreshToken.family === this.#family ? { refresh_token: refreshToken.token } : {}),
    });
  }

  #failed({ attempt, retry_in_ms }: Extract<TokenControl, { control: 'token_failed' }>): void {
    // Before the event is sent, because its receiver reads the state for the connection gauge.
    if (this.#state === 'active') this.#enterState('refresh_failed', 'refresh_failed');
    this.#owner.sendTokenEvent('token_refresh_failed', { attempt, retry_in_ms });
    this.#degradeIfExpired();
  }

  /** Degrades if the token has expired. Until then it is valid, whatever happened to its refresh. */
  #degradeIfExpired(): void {
    if (!this.#ended && this.#deps.clock.now() >= this.#owner.identity.tokenExpiresAt) this.#degrade();
  }

  #degrade(): void {
    if (this.#state === 'degraded') return;
    this.#enterState('degraded', 'degraded');
    this.#owner.sendTokenEvent('token_degraded', { until: iso(this.#owner.identity.tokenExpiresAt + this.#graceMs) });
  }

  #terminate(code: Refusal, reason: TerminationReason): void {
    this.#deps.tokenEvents.emit({ type: 'terminated', connectionId: this.#owner.connectionId, reason });
    this.#owner.terminate(code, reason);
  }

  #enterState(state: TokenState, event: 'refreshed' | 'refresh_failed' | 'degraded'): void {
    this.#state = state;
    this.#emit(event);
  }

  #emit(type: 'registered' | 'refreshed' | 'refresh_failed' | 'degraded'): void {
    this.#deps.tokenEvents.emit({ type, connectionId: this.#owner.connectionId });
  }

  #log(level: 'debug' | 'warn', err: unknown, text: string): void {
    const context = { connection_id: this.#owner.connectionId, user: userHash(this.#owner.identity.userId) };
    this.#deps.logger[level]({ ...context, err }, text);
  }

  #unregister(ref: TokenSessionRef): void {
    this.#deps.tokenSessions.unregister(ref, this.#owner.connectionId).catch((error: Error) => {
      this.#log('debug', error, 'token unregistration failed, the next refresh removes it');
    });
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** Counts token events in the metrics. */
export function countTokenEvents(events: Listeners<TokenEvent>, metrics: Metrics): void {
  events.add((event) => {
    metrics.tokenEvents.inc({ event: event.type });
    if (event.type === 'terminated') metrics.terminations.inc({ reason: event.reason });
    if (event.type === 'unregistered') metrics.connectionSeconds.observe(event.lifetimeMs / 1000);
  });
}
