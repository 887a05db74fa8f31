import type { Authenticator } from '../auth/authenticator.ts';
import { type SessionToken, sessionOf, type TokenSessionRef, type TokenSessions } from '../auth/token-sessions.ts';
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
} from '../protocol/token-life.ts';

/** What happens to the token of a connection, for whoever counts it. */
export type TokenEvent =
  | { readonly type: 'registered' | 'refreshed' | 'refresh_failed' | 'degraded'; readonly connectionId: string }
  | { readonly type: 'terminated'; readonly connectionId: string; readonly reason: TerminationReason }
  | { readonly type: 'unregistered'; readonly connectionId: string; readonly lifetimeMs: number };

export interface TokenLifeDeps {
  readonly authenticator: Pick<Authenticator, 'renewal'>;
  readonly tokenSessions: Pick<TokenSessions, 'hold' | 'drop' | 'current' | 'announced' | 'hasten'>;
  readonly tokenEvents: Listeners<TokenEvent>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The session as its token's life sees it. */
export interface TokenHolder {
  readonly connectionId: string;
  readonly identity: Identity;
  /** Takes the place of the identity so far. False when it has been revoked. */
  renew(identity: Identity): boolean;
  tell(type: 'token_refreshed' | 'token_refresh_failed' | 'token_degraded', fields: Fields): void;
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
export class TokenLife {
  readonly #deps: TokenLifeDeps;
  readonly #holder: TokenHolder;
  readonly #graceMs: number;
  /** The login session that the token is of; another one once the client has brought a token of that. */
  #ref: TokenSessionRef;
  readonly #registeredAt: number;
  #state: TokenState = 'active';
  #opened = false;
  #ended = false;
  /** Came before the client had been told who it is. */
  #early: SessionToken | undefined;
  /** The token's end for which the store was asked whether there is a newer one. */
  #lookedUpFor = 0;

  constructor(deps: TokenLifeDeps, holder: TokenHolder, graceMs: number) {
    this.#deps = deps;
    this.#holder = holder;
    this.#graceMs = graceMs;
    this.#registeredAt = deps.clock.now();
    this.#ref = sessionOf(holder.identity);
    this.#tell('registered');
  }

  get state(): TokenState {
    return this.#state;
  }

  /**
   * Has the token refreshed from now on; a later one of the same session takes its place. Never throws: a connection
   * whose token could not be registered lives as long as its token.
   */
  async hold(): Promise<void> {
    const { sealedToken: sealed, tokenExpiresAt: expiresAt } = this.#holder.identity;
    if (sealed === undefined || this.#ended) return;
    const ref = this.#ref;
    try {
      const { tokenSessions } = this.#deps;
      const newer = await tokenSessions.hold(ref, this.#holder.connectionId, { sealed, expiresAt });
      // The connection may have ended meanwhile; what it had taken must not stay behind.
      if (this.#ended) return this.#drop(ref);
      if (newer) await this.#take(ref, newer);
    } catch (error) {
      this.#log('warn', error, 'a token was not registered for its refresh');
    }
  }

  /** The client has been told who it is: what is told from now on comes after that. */
  opened(): void {
    this.#opened = true;
    if (this.#early) void this.#adopt(this.#ref, this.#early);
    this.#early = undefined;
  }

  /**
   * The client brought a newer token itself, and the identity is that token's by now. One of another login session takes
   * this connection there, and no other: those that stay must end with the session that they are of.
   */
  async renewed(): Promise<void> {
    this.#become('active', 'refreshed');
    const left = this.#ref;
    const { identity } = this.#holder;
    this.#ref = sessionOf(identity);
    if (this.#ref.session !== left.session && identity.sealedToken !== undefined) this.#drop(left);
    await this.hold();
  }

  /** Asks for a refresh now. @throws TollgateError FORMAT_ERROR when nobody can refresh this token, OVERLOADED */
  async hasten(): Promise<void> {
    if (await this.#deps.tokenSessions.hasten(this.#ref)) return;
    throw new TollgateError('FORMAT_ERROR', { text: '"token": there is no token here that could be refreshed.' });
  }

  /** What a worker told the user's connections; those of other sessions are not meant. */
  control(control: TokenControl): void {
    if (control.session !== this.#ref.session || this.#ended) return;
    if (control.control === 'session_ended')
      return this.#terminate(control.code, terminationReason(control.code) ?? 'refused');
    if (control.control === 'token_failed') return this.#failed(control);
    const token = this.#deps.tokenSessions.announced(control);
    if (token) void this.#take(this.#ref, token);
  }

  /** News may have been missed. */
  async lookUp(): Promise<void> {
    if (this.#holder.identity.sealedToken === undefined || this.#ended) return;
    const ref = this.#ref;
    try {
      const kept = await this.#deps.tokenSessions.current(ref);
      if (kept) await this.#take(ref, kept);
    } catch (error) {
      this.#log('debug', error, 'the token of a session was not looked up');
    }
  }

  /** Called about once a second. */
  tick(now: number): void {
    const { tokenExpiresAt } = this.#holder.identity;
    if (now < tokenExpiresAt || this.#ended) return;
    if (now >= tokenExpiresAt + this.#graceMs) return this.#terminate('TOKEN_EXPIRED', 'degraded_timeout');
    if (this.#lookedUpFor !== tokenExpiresAt) {
      this.#lookedUpFor = tokenExpiresAt;
      void this.lookUp().then(() => this.#outlived());
    }
  }

  /** The connection has ended. Never waits, never throws. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deps.tokenEvents.tell({
      type: 'unregistered',
      connectionId: this.#holder.connectionId,
      lifetimeMs: this.#deps.clock.now() - this.#registeredAt,
    });
    if (this.#holder.identity.sealedToken !== undefined) this.#drop(this.#ref);
  }

  async #take(ref: TokenSessionRef, token: SessionToken): Promise<void> {
    if (this.#opened) await this.#adopt(ref, token);
    else this.#early = token;
  }

  /** @param ref the session that the token is kept of, which this connection may have left meanwhile */
  async #adopt(ref: TokenSessionRef, { token, expiresAt, refreshes }: SessionToken): Promise<void> {
    if (expiresAt <= this.#holder.identity.tokenExpiresAt) return;
    let identity: Identity;
    try {
      identity = await this.#deps.authenticator.renewal(token, this.#holder.identity);
    } catch (error) {
      this.#log('warn', error, 'a refreshed token was not accepted');
      return;
    }
    const current = this.#holder.identity;
    if (ref.session !== this.#ref.session) return;
    if (this.#ended || identity.userId !== current.userId || identity.tokenExpiresAt <= current.tokenExpiresAt) return;
    if (!this.#holder.renew(identity)) return;
    this.#become('active', 'refreshed');
    this.#holder.tell('token_refreshed', {
      access_token: token,
      token_expires_at: iso(identity.tokenExpiresAt),
      refresh_count: refreshes,
    });
  }

  #failed({ attempt, retry_in_ms, degraded }: Extract<TokenControl, { control: 'token_failed' }>): void {
    // Before it is told: who hears it counts the connection under its state.
    if (!degraded && this.#state === 'active') this.#become('refresh_failed', 'refresh_failed');
    this.#holder.tell('token_refresh_failed', { attempt, retry_in_ms });
    if (degraded) this.#degrade();
  }

  /** The token has ended and there is no newer one. */
  #outlived(): void {
    if (!this.#ended && this.#deps.clock.now() >= this.#holder.identity.tokenExpiresAt) this.#degrade();
  }

  #degrade(): void {
    if (this.#state === 'degraded') return;
    this.#become('degraded', 'degraded');
    this.#holder.tell('token_degraded', { until: iso(this.#holder.identity.tokenExpiresAt + this.#graceMs) });
  }

  #terminate(code: Refusal, reason: TerminationReason): void {
    this.#deps.tokenEvents.tell({ type: 'terminated', connectionId: this.#holder.connectionId, reason });
    this.#holder.terminate(code, reason);
  }

  #become(state: TokenState, event: 'refreshed' | 'refresh_failed' | 'degraded'): void {
    this.#state = state;
    this.#tell(event);
  }

  #tell(type: 'registered' | 'refreshed' | 'refresh_failed' | 'degraded'): void {
    this.#deps.tokenEvents.tell({ type, connectionId: this.#holder.connectionId });
  }

  #log(level: 'debug' | 'warn', err: unknown, text: string): void {
    const who = { connection_id: this.#holder.connectionId, user: userHash(this.#holder.identity.userId) };
    this.#deps.logger[level]({ ...who, err }, text);
  }

  #drop(ref: TokenSessionRef): void {
    this.#deps.tokenSessions.drop(ref, this.#holder.connectionId).catch((error: Error) => {
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
