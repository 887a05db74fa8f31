import type { Authenticator } from '../auth/authenticator.ts';
import {
  type SessionToken,
  sessionOf,
  type TokenSessionRef,
  type TokenSessions,
} from '../auth/token-refresh/token-sessions.ts';
import type { Clock } from '../lib/clock.ts';
import type { Listeners } from '../lib/listeners.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import {
  type Refusal,
  type TerminationReason,
  type TokenControl,
  type TokenState,
  terminationReason,
} from '../protocol/token-lifecycle.ts';

/** What happens to the token of a connection, for whoever counts it. */
export type TokenEvent =
  | { readonly type: 'registered' | 'refreshed' | 'refresh_failed' | 'degraded'; readonly connectionId: string }
  | { readonly type: 'terminated'; readonly connectionId: string; readonly reason: TerminationReason }
  | { readonly type: 'unregistered'; readonly connectionId: string; readonly lifetimeMs: number };

export interface TokenLifecycleDeps {
  readonly authenticator: Pick<Authenticator, 'renewal'>;
  readonly tokenSessions: Pick<TokenSessions, 'register' | 'unregister' | 'current' | 'fromControl' | 'requestRefresh'>;
  readonly tokenEvents: Listeners<TokenEvent>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The session as its token's life sees it. */
export interface TokenOwner {
  readonly connectionId: string;
  readonly identity: Identity;
  /** Takes the place of the identity so far. False when it has been revoked. */
  renew(identity: Identity): boolean;
  sendTokenEvent(type: 'token_refreshed' | 'token_refresh_failed' | 'token_degraded', fields: Fields): void;
  terminate(code: Refusal, reason: TerminationReason): void;
}

/**
 * The life of one connection's token. Workers refresh it (`workers/refresh-tokens.ts`); what they announce on the user's
 * channel arrives here, and a connection that may have missed it looks the token up.
 *
 * States: `active` ⇄ `refresh_failed` → `degraded` → terminated by `graceMs` after the token's end. A newer token leads
 * back to `active` from everywhere, a refusal ends it from everywhere. A token that nobody can refresh (a service's, one
 * of the development bypass) goes from `active` to `degraded` at its end.
 */
export class TokenLifecycle {
  readonly #deps: TokenLifecycleDeps;
  readonly #owner: TokenOwner;
  readonly #graceMs: number;
  /** The login session that the token is of; another one once the client has brought a token of that. */
  #ref: TokenSessionRef;
  readonly #registeredAt: number;
  #state: TokenState = 'active';
  #welcomed = false;
  #ended = false;
  /** Came before the client had been told who it is. */
  #early: SessionToken | undefined;
  /** The token's end for which the store was asked whether there is a newer one. */
  #lookedUpFor = 0;

  constructor(deps: TokenLifecycleDeps, owner: TokenOwner, graceMs: number) {
    this.#deps = deps;
    this.#owner = owner;
    this.#graceMs = graceMs;
    this.#registeredAt = deps.clock.now();
    this.#ref = sessionOf(owner.identity);
    this.#emit('registered');
  }

  get state(): TokenState {
    return this.#state;
  }

  /**
   * Has the token refreshed from now on; a later one of the same session takes its place. Never throws: a connection
   * whose token could not be registered lives as long as its token.
   */
  async register(): Promise<void> {
    const { sealedToken: sealed, tokenExpiresAt: expiresAt } = this.#owner.identity;
    if (sealed === undefined || this.#ended) return;
    const ref = this.#ref;
    try {
      const { tokenSessions } = this.#deps;
      const newer = await tokenSessions.register(ref, this.#owner.connectionId, { sealed, expiresAt });
      // The connection may have ended meanwhile; what it had taken must not stay behind.
      if (this.#ended) return this.#unregister(ref);
      if (newer) await this.#onRefreshed(ref, newer);
    } catch (error) {
      this.#log('warn', error, 'a token was not registered for its refresh');
    }
  }

  /** The client has been told who it is: what is told from now on comes after that. */
  welcomed(): void {
    this.#welcomed = true;
    if (this.#early) void this.#adopt(this.#ref, this.#early);
    this.#early = undefined;
  }

  /**
   * The client brought a newer token itself, and the identity is that token's by now. One of another login session takes
   * this connection there, and no other: those that stay must end with the session that they are of.
   */
  async renewed(): Promise<void> {
    this.#enterState('active', 'refreshed');
    const previous = this.#ref;
    const { identity } = this.#owner;
    this.#ref = sessionOf(identity);
    if (this.#ref.session !== previous.session && identity.sealedToken !== undefined) this.#unregister(previous);
    await this.register();
  }

  /** Asks for a refresh now. @throws TollgateError FORMAT_ERROR when nobody can refresh this token, OVERLOADED */
  async requestRefresh(): Promise<void> {
    if (await this.#deps.tokenSessions.requestRefresh(this.#ref)) return;
    throw new TollgateError('FORMAT_ERROR', { text: '"token": there is no token here that could be refreshed.' });
  }

  /** What a worker told the user's connections; those of other sessions are not meant. */
  control(control: TokenControl): void {
    if (control.session !== this.#ref.session || this.#ended) return;
    if (control.control === 'session_ended')
      return this.#terminate(control.code, terminationReason(control.code) ?? 'refused');
    if (control.control === 'token_failed') return this.#failed(control);
    const token = this.#deps.tokenSessions.fromControl(control);
    if (token) void this.#onRefreshed(this.#ref, token);
  }

  /** News may have been missed. */
  async lookUp(): Promise<void> {
    if (this.#owner.identity.sealedToken === undefined || this.#ended) return;
    const ref = this.#ref;
    try {
      const kept = await this.#deps.tokenSessions.current(ref);
      if (kept) await this.#onRefreshed(ref, kept);
    } catch (error) {
      this.#log('debug', error, 'the token of a session was not looked up');
    }
  }

  /** Called about once a second. */
  tick(now: number): void {
    const { tokenExpiresAt } = this.#owner.identity;
    if (now < tokenExpiresAt || this.#ended) return;
    if (now >= tokenExpiresAt + this.#graceMs) return this.#terminate('TOKEN_EXPIRED', 'degraded_timeout');
    if (this.#lookedUpFor !== tokenExpiresAt) {
      this.#lookedUpFor = tokenExpiresAt;
      void this.lookUp().then(() => this.#degradeIfExpired());
    }
  }

  /** The connection has ended. Never waits, never throws. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deps.tokenEvents.emit({
      type: 'unregistered',
      connectionId: this.#owner.connectionId,
      lifetimeMs: this.#deps.clock.now() - this.#registeredAt,
    });
    if (this.#owner.identity.sealedToken !== undefined) this.#unregister(this.#ref);
  }

  async #onRefreshed(ref: TokenSessionRef, token: SessionToken): Promise<void> {
    if (this.#welcomed) await this.#adopt(ref, token);
    else this.#early = token;
  }

  /** @param ref the session that the token is kept of, which this connection may have left meanwhile */
  async #adopt(ref: TokenSessionRef, { token, expiresAt, refreshes }: SessionToken): Promise<void> {
    if (expiresAt <= this.#owner.identity.tokenExpiresAt) return;
    let identity: Identity;
    try {
      identity = await this.#deps.authenticator.renewal(token, this.#owner.identity);
    } catch (error) {
      this.#log('warn', error, 'a refreshed token was not accepted');
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
    });
  }

  #failed({ attempt, retry_in_ms, degraded }: Extract<TokenControl, { control: 'token_failed' }>): void {
    // Before it is told: who hears it counts the connection under its state.
    if (!degraded && this.#state === 'active') this.#enterState('refresh_failed', 'refresh_failed');
    this.#owner.sendTokenEvent('token_refresh_failed', { attempt, retry_in_ms });
    if (degraded) this.#degrade();
  }

  /** The token has ended and there is no newer one. */
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
      this.#log('debug', error, 'a token was not given back; its next refresh finds nobody');
    });
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** Counts what happens to tokens. */
export function countTokenEvents(events: Listeners<TokenEvent>, metrics: Metrics): void {
  events.add((event) => {
    metrics.tokenEvents.inc({ event: event.type });
    if (event.type === 'terminated') metrics.terminations.inc({ reason: event.reason });
    if (event.type === 'unregistered') metrics.connectionSeconds.observe(event.lifetimeMs / 1000);
  });
}
