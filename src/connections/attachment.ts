import { type Account, withPlan } from '../accounts/accounts.ts';
import { type Revocations, subjectsOf } from '../accounts/revocations.ts';
import type { Plans } from '../catalogue/plans.ts';
import type { Admission, ConnectionDetails, ConnectionRegistry, LeaseState } from '../cluster/connection-registry.ts';
import { Cursor, type ReplayGap } from '../events/cursor.ts';
import type { EventLog } from '../events/event-log.ts';
import type { LiveTail } from '../events/live-tail.ts';
import type { Clock } from '../lib/clock.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Tracing } from '../lib/tracing.ts';
import { type ErrorCode, TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { type Fields, type LogEntry, type PublishedEvent, publishedEvent } from '../protocol/messages.ts';
import { isRefusalCode, type TerminationReason, TokenControl } from '../protocol/token-lifecycle.ts';
import type { ConnectionLimits } from './limits.ts';
import type { LiveAttachments } from './live-attachments.ts';
import { TokenLifecycle, type TokenLifecycleDeps, type TokenOwner } from './token-lifecycle.ts';

export interface AttachmentDeps extends TokenLifecycleDeps {
  readonly registry: ConnectionRegistry;
  readonly revocations: Pick<Revocations, 'any'>;
  readonly liveAttachments: LiveAttachments;
  readonly liveTail: LiveTail;
  readonly eventLog: EventLog;
  readonly plans: Plans;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly tracing: Tracing;
  readonly limits: Pick<ConnectionLimits, 'degradedMs'>;
}

/** What happens to a session, told to the connection it belongs to. */
export interface AttachmentEvents {
  readonly closed: boolean;
  deliver(entry: LogEntry): void;
  onReplayGap(gap: ReplayGap): void;
  writable(): Promise<boolean>;
  /** The log cannot be read, and that is no outage. */
  onError(error: unknown): void;
  /** The session has lost its right to live. */
  onTerminated(code: ErrorCode, reason?: TerminationReason): void;
  onPlanChanged(): void;
  onTokenChanged(type: 'token_refreshed' | 'token_refresh_failed' | 'token_degraded', fields: Fields): void;
  /** An event of the moment that somebody published to the user. */
  onPublished(type: PublishedEvent, fields: Fields): void;
}

/**
 * The authenticated part of a connection: its identity, its place in the registry and its place in the user's log.
 *
 * `join` subscribes first and asks for admission second: what is published after the admission's head of the log is
 * then held back by the cursor, so that nothing falls between the two.
 */
export class Attachment implements TokenOwner {
  readonly connectionId: string;
  readonly cursor: Cursor;
  readonly token: TokenLifecycle;
  readonly #deps: AttachmentDeps;
  readonly #events: AttachmentEvents;
  readonly #details: ConnectionDetails;
  #identity: Identity;
  /** As the token says it; `#identity` is what counts. */
  #tokenIdentity: Identity;
  /** What an operator stored: it wins over the token's. */
  #storedPlan: string | undefined;
  #admissionOrder: number | undefined;
  /** As it was announced last; undefined when it never was. */
  #account: Account | undefined;
  #revokedBefore = 0;
  #stopListening: (() => void) | undefined;
  #admitting = false;
  #admissionRequested = false;
  #detached = false;

  constructor(
    deps: AttachmentDeps,
    options: { readonly connectionId: string; readonly identity: Identity; readonly details: ConnectionDetails },
    events: AttachmentEvents,
  ) {
    this.#deps = deps;
    this.#events = events;
    this.connectionId = options.connectionId;
    this.#identity = options.identity;
    this.#tokenIdentity = options.identity;
    this.#details = options.details;
    this.cursor = new Cursor({ log: deps.eventLog, clock: deps.clock }, options.identity.userId, {
      deliver: (entry) => events.deliver(entry),
      onReplayGap: (loss) => events.onReplayGap(loss),
      writable: () => events.writable(),
      onError: (error) => events.onError(error),
    });
    this.token = new TokenLifecycle(deps, this, deps.limits.degradedMs);
  }

  get identity(): Identity {
    return this.#identity;
  }

  /**
   * Takes a place in the cluster: two round trips, one when this node already listens to the user. Undefined when the
   * socket closed before its turn came: it must not cost another connection its place.
   * @throws TollgateError USER_BLOCKED, TOKEN_REVOKED, OVERLOADED while Redis is away
   */
  async attach(): Promise<Admission | undefined> {
    try {
      this.#stopListening = await this.#deps.liveTail.listen(this.#identity.userId, {
        onEntry: (entry) => this.cursor.onLiveEntry(entry),
        onControl: (control) => this.#control(control),
        onGap: () => {
          this.cursor.catchUp();
          void this.token.lookUp();
        },
      });
      if (this.#events.closed) return undefined;
      // Before the place is asked for: what is announced from here on finds the session, what was announced before is
      // known to this node or to the admission.
      if (!this.#deps.liveAttachments.add(this)) throw new TollgateError('TOKEN_REVOKED');
      // Sent with the admission, in one flight.
      void this.token.register();
      const admission = await this.#admit();
      this.cursor.start(admission.epoch, admission.seq);
      return admission;
    } catch (error) {
      this.detach();
      throw error;
    }
  }

  /**
   * A newer token that the client brought.
   * @throws TollgateError USER_MISMATCH, TOKEN_REVOKED, VALIDATION_FAILED when it ends sooner, and what the
   *   authenticator throws
   */
  async acceptToken(token: string): Promise<void> {
    const identity = await this.#deps.authenticator.renewal(token, this.#identity);
    // The socket may have closed meanwhile: what is found by the new token's names would stay for ever.
    if (this.#detached) return;
    if (identity.userId !== this.#identity.userId) throw new TollgateError('USER_MISMATCH');
    if (identity.tokenExpiresAt <= this.#identity.tokenExpiresAt) {
      const text = 'Authentication failed: validation of the new credential found that it does not last longer.';
      throw new TollgateError('VALIDATION_FAILED', { text });
    }
    if (this.#isRevoked(identity)) throw new TollgateError('TOKEN_REVOKED');
    this.#applyIdentity(identity);
    // Not waited for: the client's answer does not depend on who else is told.
    void this.token.renewed();
  }

  renew(identity: Identity): boolean {
    if (this.#isRevoked(identity)) return false;
    this.#applyIdentity(identity);
    return true;
  }

  /** Asked again: the token was verified a while ago, and may have been revoked since. */
  #isRevoked(identity: Identity): boolean {
    return this.#deps.liveAttachments.isRevoked(identity) || identity.tokenIssuedAt < this.#revokedBefore;
  }

  #applyIdentity(identity: Identity): void {
    const { plan, method } = this.#identity;
    this.#deps.liveAttachments.remove(this);
    this.#tokenIdentity = { ...identity, method };
    this.#applyPlan();
    this.#deps.liveAttachments.add(this);
    if (this.#identity.plan !== plan) this.#events.onPlanChanged();
  }

  sendTokenEvent(type: 'token_refreshed' | 'token_refresh_failed' | 'token_degraded', fields: Fields): void {
    this.#events.onTokenChanged(type, fields);
  }

  terminate(code: ErrorCode, reason: TerminationReason): void {
    this.#events.onTerminated(code, reason);
  }

  /** The token or the session behind it was revoked. */
  revoke(): void {
    if (!this.#detached) this.#events.onTerminated('TOKEN_REVOKED');
  }

  /** What an operator decided about the user, as it is stored by now. */
  applyAccount(account: Account): void {
    if (this.#detached) return;
    this.#account = account;
    this.#revokedBefore = account.revokedBefore;
    if (account.blocked) return this.#events.onTerminated('USER_BLOCKED');
    if (this.#identity.tokenIssuedAt < account.revokedBefore) return this.revoke();
    // The admission's answer may be on its way, and older than this: it is applied after that one.
    if (this.#admitting) return;
    const before = this.#identity.plan;
    this.#storedPlan = account.plan;
    this.#applyPlan();
    if (this.#identity.plan !== before) this.#events.onPlanChanged();
  }

  /** The outcome of a renewal of this session's lease. */
  leaseRenewed(state: LeaseState, epoch: string, seq: number): void {
    if (state === 'evicted') this.#events.onTerminated('CONNECTION_LIMIT_EXCEEDED');
    else if (state === 'closed') this.#events.onTerminated('CONNECTION_CLOSED');
    else if (state === 'missing') void this.#readmit();
    else this.cursor.noteHead(epoch, seq);
  }

  /** Gives everything back; never waits, never throws. */
  detach(): void {
    if (this.#detached) return;
    this.#detached = true;
    this.cursor.stop();
    this.#deps.liveAttachments.remove(this);
    this.#stopListening?.();
    this.#release();
    this.token.end();
  }

  async #admit(): Promise<Admission> {
    const accountBefore = this.#account;
    const admission = await this.#deps.tracing.span('admit', {}, () => this.#requestAdmission());
    this.#admissionOrder = admission.order;
    this.#revokedBefore = Math.max(this.#revokedBefore, admission.revokedBefore);
    this.#storedPlan = admission.storedPlan;
    this.#applyPlan();
    // Only what was heard while the answer was on its way: otherwise the answer is the newer one.
    if (this.#account && this.#account !== accountBefore) this.applyAccount(this.#account);
    // The socket may have closed meanwhile; its place must not stay behind until the lease ends.
    if (this.#detached) this.#release();
    return admission;
  }

  async #requestAdmission(): Promise<Admission> {
    const { userId, tokenIssuedAt } = this.#identity;
    this.#admissionRequested = true;
    this.#admitting = true;
    const { registry, revocations } = this.#deps;
    try {
      const admitted = registry.admit({
        userId,
        plan: this.#tokenIdentity.plan,
        tokenIssuedAt,
        connectionId: this.connectionId,
        details: this.#details,
        ...(this.#admissionOrder === undefined ? {} : { order: this.#admissionOrder }),
      });
      // In the same flight: this node may not have heard yet what another one has been told. The user's own revocations
      // are the admission's to see.
      const [admission, revoked] = await Promise.all([admitted, revocations.any(subjectsOf(this.#identity))]);
      if (revoked) throw new TollgateError('TOKEN_REVOKED');
      return admission;
    } finally {
      this.#admitting = false;
    }
  }

  /** The lease ended while Redis was out of reach: the old place again, if it is still within the cap. */
  async #readmit(): Promise<void> {
    if (this.#detached) return;
    try {
      void this.token.register();
      await this.#admit();
      if (!this.#detached) this.cursor.catchUp();
    } catch (error) {
      if (error instanceof TollgateError && isRefusalCode(error.code)) this.#events.onTerminated(error.code);
      else this.#log('warn', error, 'a connection was not admitted again; the next renewal tries');
    }
  }

  #release(): void {
    // Also after an admission that failed: it may have been given, and only its answer lost.
    if (!this.#admissionRequested) return;
    this.#deps.registry.release(this.#identity.userId, [this.connectionId]).catch((error: Error) => {
      this.#log('debug', error, 'a place was not given back; its lease ends by itself');
    });
  }

  #log(level: 'debug' | 'warn', err: unknown, text: string): void {
    const context = { connection_id: this.connectionId, user: userHash(this.#identity.userId) };
    this.#deps.logger[level]({ ...context, err }, text);
  }

  #applyPlan(): void {
    const token = this.#tokenIdentity;
    this.#identity = withPlan(token, this.#storedPlan ?? token.plan, this.#deps.plans);
  }

  #control(control: Readonly<Record<string, unknown>>): void {
    if (this.#detached) return;
    const ids = Array.isArray(control.connection_ids) ? control.connection_ids : [];
    if (control.control === 'evict' && ids.includes(this.connectionId))
      this.#events.onTerminated('CONNECTION_LIMIT_EXCEEDED');
    if (control.control === 'close' && ids.includes(this.connectionId)) this.#events.onTerminated('CONNECTION_CLOSED');
    if (control.control === 'publish') {
      const event = publishedEvent(control.event);
      if (event) this.#events.onPublished(event.type, event.fields);
    }
    const tokenControl = TokenControl.safeParse(control);
    if (tokenControl.success) this.token.control(tokenControl.data);
  }
}
