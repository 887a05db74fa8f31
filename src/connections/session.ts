import { Cursor, type Loss } from '../events/cursor.ts';
import type { EventLog } from '../events/event-log.ts';
import type { LiveTail } from '../events/live-tail.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Tracing } from '../lib/tracing.ts';
import { type Account, underPlan } from '../policy/accounts.ts';
import type { Plans } from '../policy/plans.ts';
import { type Revocations, subjectsOf } from '../policy/revocations.ts';
import { type ErrorCode, TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { type Fields, type LogEntry, type PublishedEvent, publishedEvent } from '../protocol/messages.ts';
import { isRefusalCode, type TerminationReason, TokenControl } from '../protocol/token-life.ts';
import type { ConnectionLimits } from './limits.ts';
import type { LiveSessions } from './live-sessions.ts';
import type { Admission, ConnectionDetails, LeaseState, Registry } from './registry.ts';
import { type TokenHolder, TokenLife, type TokenLifeDeps } from './token-life.ts';

export interface SessionDeps extends TokenLifeDeps {
  readonly registry: Registry;
  readonly revocations: Pick<Revocations, 'any'>;
  readonly liveSessions: LiveSessions;
  readonly liveTail: LiveTail;
  readonly eventLog: EventLog;
  readonly plans: Plans;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly tracing: Tracing;
  readonly limits: Pick<ConnectionLimits, 'degradedMs'>;
}

/** What happens to a session, told to the connection it belongs to. */
export interface SessionEvents {
  readonly closed: boolean;
  deliver(entry: LogEntry): void;
  lost(loss: Loss): void;
  writable(): Promise<boolean>;
  /** The log cannot be read, and that is no outage. */
  failed(error: unknown): void;
  /** The session has lost its right to live. */
  ended(code: ErrorCode, reason?: TerminationReason): void;
  planChanged(): void;
  tokenChanged(type: 'token_refreshed' | 'token_refresh_failed' | 'token_degraded', fields: Fields): void;
  /** An event of the moment that somebody published to the user. */
  published(type: PublishedEvent, fields: Fields): void;
}

/**
 * The authenticated part of a connection: its identity, its place in the registry and its place in the user's log.
 *
 * `join` subscribes first and asks for admission second: what is published after the admission's head of the log is
 * then held back by the cursor, so that nothing falls between the two.
 */
export class Session implements TokenHolder {
  readonly connectionId: string;
  readonly cursor: Cursor;
  readonly token: TokenLife;
  readonly #deps: SessionDeps;
  readonly #events: SessionEvents;
  readonly #details: ConnectionDetails;
  #identity: Identity;
  /** As the token says it; `#identity` is what counts. */
  #tokenIdentity: Identity;
  /** What an operator stored: it wins over the token's. */
  #storedPlan: string | undefined;
  #place: number | undefined;
  /** As it was announced last; undefined when it never was. */
  #account: Account | undefined;
  #revokedBefore = 0;
  #stopListening: (() => void) | undefined;
  #admitting = false;
  #askedForPlace = false;
  #left = false;

  constructor(
    deps: SessionDeps,
    who: { readonly connectionId: string; readonly identity: Identity; readonly details: ConnectionDetails },
    events: SessionEvents,
  ) {
    this.#deps = deps;
    this.#events = events;
    this.connectionId = who.connectionId;
    this.#identity = who.identity;
    this.#tokenIdentity = who.identity;
    this.#details = who.details;
    this.cursor = new Cursor({ log: deps.eventLog, clock: deps.clock }, who.identity.userId, {
      deliver: (entry) => events.deliver(entry),
      lost: (loss) => events.lost(loss),
      writable: () => events.writable(),
      failed: (error) => events.failed(error),
    });
    this.token = new TokenLife(deps, this, deps.limits.degradedMs);
  }

  get identity(): Identity {
    return this.#identity;
  }

  /**
   * Takes a place in the cluster: two round trips, one when this node already listens to the user. Undefined when the
   * socket closed before its turn came: it must not cost another connection its place.
   * @throws TollgateError USER_BLOCKED, TOKEN_REVOKED, OVERLOADED while Redis is away
   */
  async join(): Promise<Admission | undefined> {
    try {
      this.#stopListening = await this.#deps.liveTail.listen(this.#identity.userId, {
        onEntry: (entry) => this.cursor.offer(entry),
        onControl: (control) => this.#control(control),
        onGap: () => {
          this.cursor.catchUp();
          void this.token.lookUp();
        },
      });
      if (this.#events.closed) return undefined;
      // Before the place is asked for: what is announced from here on finds the session, what was announced before is
      // known to this node or to the admission.
      if (!this.#deps.liveSessions.add(this)) throw new TollgateError('TOKEN_REVOKED');
      // Sent with the admission, in one flight.
      void this.token.hold();
      const admission = await this.#admit();
      this.cursor.start(admission.epoch, admission.seq);
      return admission;
    } catch (error) {
      this.leave();
      throw error;
    }
  }

  /**
   * A newer token that the client brought.
   * @throws TollgateError USER_MISMATCH, TOKEN_REVOKED, VALIDATION_FAILED when it ends sooner, and what the
   *   authenticator throws
   */
  async bringToken(token: string): Promise<void> {
    const identity = await this.#deps.authenticator.renewal(token, this.#identity);
    // The socket may have closed meanwhile: what is found by the new token's names would stay for ever.
    if (this.#left) return;
    if (identity.userId !== this.#identity.userId) throw new TollgateError('USER_MISMATCH');
    if (identity.tokenExpiresAt <= this.#identity.tokenExpiresAt) {
      const text = 'Authentication failed: validation of the new credential found that it does not last longer.';
      throw new TollgateError('VALIDATION_FAILED', { text });
    }
    if (this.#isRevoked(identity)) throw new TollgateError('TOKEN_REVOKED');
    this.#take(identity);
    // Not waited for: the client's answer does not depend on who else is told.
    void this.token.renewed();
  }

  renew(identity: Identity): boolean {
    if (this.#isRevoked(identity)) return false;
    this.#take(identity);
    return true;
  }

  /** Asked again: the token was verified a while ago, and may have been revoked since. */
  #isRevoked(identity: Identity): boolean {
    return this.#deps.liveSessions.isRevoked(identity) || identity.tokenIssuedAt < this.#revokedBefore;
  }

  #take(identity: Identity): void {
    const { plan, method } = this.#identity;
    this.#deps.liveSessions.remove(this);
    this.#tokenIdentity = { ...identity, method };
    this.#takePlan();
    this.#deps.liveSessions.add(this);
    if (this.#identity.plan !== plan) this.#events.planChanged();
  }

  tell(type: 'token_refreshed' | 'token_refresh_failed' | 'token_degraded', fields: Fields): void {
    this.#events.tokenChanged(type, fields);
  }

  terminate(code: ErrorCode, reason: TerminationReason): void {
    this.#events.ended(code, reason);
  }

  /** The token or the session behind it was revoked. */
  revoke(): void {
    if (!this.#left) this.#events.ended('TOKEN_REVOKED');
  }

  /** What an operator decided about the user, as it is stored by now. */
  applyAccount(account: Account): void {
    if (this.#left) return;
    this.#account = account;
    this.#revokedBefore = account.revokedBefore;
    if (account.blocked) return this.#events.ended('USER_BLOCKED');
    if (this.#identity.tokenIssuedAt < account.revokedBefore) return this.revoke();
    // The admission's answer may be on its way, and older than this: it is applied after that one.
    if (this.#admitting) return;
    const before = this.#identity.plan;
    this.#storedPlan = account.plan;
    this.#takePlan();
    if (this.#identity.plan !== before) this.#events.planChanged();
  }

  /** The outcome of a renewal of this session's lease. */
  leaseRenewed(state: LeaseState, epoch: string, seq: number): void {
    if (state === 'evicted') this.#events.ended('CONNECTION_LIMIT_EXCEEDED');
    else if (state === 'closed') this.#events.ended('CONNECTION_CLOSED');
    else if (state === 'missing') void this.#readmit();
    else this.cursor.noteHead(epoch, seq);
  }

  /** Gives everything back; never waits, never throws. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.cursor.stop();
    this.#deps.liveSessions.remove(this);
    this.#stopListening?.();
    this.#release();
    this.token.end();
  }

  async #admit(): Promise<Admission> {
    const heardBefore = this.#account;
    const admission = await this.#deps.tracing.span('admit', {}, () => this.#askForPlace());
    this.#place = admission.place;
    this.#revokedBefore = Math.max(this.#revokedBefore, admission.revokedBefore);
    this.#storedPlan = admission.storedPlan;
    this.#takePlan();
    // Only what was heard while the answer was on its way: otherwise the answer is the newer one.
    if (this.#account && this.#account !== heardBefore) this.applyAccount(this.#account);
    // The socket may have closed meanwhile; its place must not stay behind until the lease ends.
    if (this.#left) this.#release();
    return admission;
  }

  async #askForPlace(): Promise<Admission> {
    const { userId, tokenIssuedAt } = this.#identity;
    this.#askedForPlace = true;
    this.#admitting = true;
    const { registry, revocations } = this.#deps;
    try {
      const place = registry.admit({
        userId,
        plan: this.#tokenIdentity.plan,
        tokenIssuedAt,
        connectionId: this.connectionId,
        details: this.#details,
        ...(this.#place === undefined ? {} : { place: this.#place }),
      });
      // In the same flight: this node may not have heard yet what another one has been told. The user's own revocations
      // are the admission's to see.
      const [admission, revoked] = await Promise.all([place, revocations.any(subjectsOf(this.#identity))]);
      if (revoked) throw new TollgateError('TOKEN_REVOKED');
      return admission;
    } finally {
      this.#admitting = false;
    }
  }

  /** The lease ended while Redis was out of reach: the old place again, if it is still within the cap. */
  async #readmit(): Promise<void> {
    if (this.#left) return;
    try {
      void this.token.hold();
      await this.#admit();
      if (!this.#left) this.cursor.catchUp();
    } catch (error) {
      if (error instanceof TollgateError && isRefusalCode(error.code)) this.#events.ended(error.code);
      else this.#log('warn', error, 'a connection was not admitted again; the next renewal tries');
    }
  }

  #release(): void {
    // Also after an admission that failed: it may have been given, and only its answer lost.
    if (!this.#askedForPlace) return;
    this.#deps.registry.release(this.#identity.userId, [this.connectionId]).catch((error: Error) => {
      this.#log('debug', error, 'a place was not given back; its lease ends by itself');
    });
  }

  #log(level: 'debug' | 'warn', err: unknown, text: string): void {
    const who = { connection_id: this.connectionId, user: userHash(this.#identity.userId) };
    this.#deps.logger[level]({ ...who, err }, text);
  }

  #takePlan(): void {
    const token = this.#tokenIdentity;
    this.#identity = underPlan(token, this.#storedPlan ?? token.plan, this.#deps.plans);
  }

  #control(control: Readonly<Record<string, unknown>>): void {
    if (this.#left) return;
    const ids = Array.isArray(control.connection_ids) ? control.connection_ids : [];
    if (control.control === 'evict' && ids.includes(this.connectionId)) this.#events.ended('CONNECTION_LIMIT_EXCEEDED');
    if (control.control === 'close' && ids.includes(this.connectionId)) this.#events.ended('CONNECTION_CLOSED');
    if (control.control === 'publish') {
      const event = publishedEvent(control.event);
      if (event) this.#events.published(event.type, event.fields);
    }
    const ofToken = TokenControl.safeParse(control);
    if (ofToken.success) this.token.control(ofToken.data);
  }
}
