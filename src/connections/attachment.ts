import { type Account, withPlan } from '../accounts/accounts.ts';
import { type Revocations, subjectsOf } from '../accounts/revocations.ts';
import type { Plans } from '../catalogue/plans.ts';
import type { Admission, ConnectionDetails, ConnectionRegistry, LeaseState } from '../cluster/connection-registry.ts';
import { Cursor, type CursorSink } from '../events/cursor.ts';
import type { EventLog } from '../events/event-log.ts';
import type { LiveTail, TailListener } from '../events/live-tail.ts';
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

/** Callbacks of an attachment to its connection. */
export interface AttachmentEvents extends CursorSink {
  readonly closed: boolean;
  readonly details: ConnectionDetails;
  /** The attachment must end: eviction, revocation, block, expiry or an administrator's close. */
  onTerminated(code: ErrorCode, reason?: TerminationReason): void;
  onPlanChanged(): void;
  onTokenChanged(type: 'token_refreshed' | 'token_refresh_failed' | 'token_degraded', fields: Fields): void;
  /** A service published a non-durable event to the user. */
  onPublished(type: PublishedEvent, fields: Fields): void;
}

/**
 * The authenticated part of a connection: identity, lease, log cursor and token lifecycle.
 *
 * `attach` subscribes to the user channel before it requests admission. The cursor buffers events that arrive in
 * between, so no event is lost between the log head that admission returns and the first live event.
 */
export class Attachment implements TokenOwner, TailListener {
  readonly connectionId: string;
  readonly cursor: Cursor;
  readonly token: TokenLifecycle;
  readonly #deps: AttachmentDeps;
  readonly #events: AttachmentEvents;
  #identity: Identity;
  /** Identity as the token states it. `#identity` has the effective plan applied. */
  #tokenIdentity: Identity;
  /** Plan that an administrator stored; it overrides the token's plan. */
  #storedPlan: string | undefined;
  #admissionOrder: number | undefined;
  /** Account as of the last invalidation; undefined before the first one. */
  #account: Account | undefined;
  #revokedBefore = 0;
  #admitting = false;
  #admissionRequested = false;
  #left = false;
  #detached = false;

  constructor(
    deps: AttachmentDeps,
    options: { readonly connectionId: string; readonly identity: Identity },
    events: AttachmentEvents,
  ) {
    this.#deps = deps;
    this.#events = events;
    this.connectionId = options.connectionId;
    this.#identity = options.identity;
    this.#tokenIdentity = options.identity;
    this.cursor = new Cursor(deps, options.identity.userId, events);
    this.token = new TokenLifecycle(deps, this, deps.limits.degradedMs);
  }

  get identity(): Identity {
    return this.#identity;
  }

  /**
   * Requests admission: two round trips, or one when this node already serves the user. Returns undefined when the
   * socket closed before the request was sent, so that it evicts no other connection.
   * @throws TollgateError USER_BLOCKED, TOKEN_REVOKED, OVERLOADED while Redis is unavailable
   */
  async attach(): Promise<Admission | undefined> {
    try {
      await this.#deps.liveTail.listen(this.#identity.userId, this);
      if (this.#events.closed) return undefined;
      // Registered before the admission request: later invalidations find this attachment, and the revocation cache or
      // the admission covers earlier ones.
      if (!this.#deps.liveAttachments.add(this)) throw new TollgateError('TOKEN_REVOKED');
      const admission = await this.#admit();
      this.cursor.start(admission.epoch, admission.seq);
      return admission;
    } catch (error) {
      this.detach();
      throw error;
    }
  }

  /**
   * Replaces the token with a newer one that the client presented.
   * @param refreshToken handed over with it; then the token may be the current one
   * @throws TollgateError USER_MISMATCH, TOKEN_REVOKED, VALIDATION_FAILED when it does not expire later, and the errors
   *   of the authenticator
   */
  async acceptToken(token: string, refreshToken?: string): Promise<void> {
    const identity = await this.#deps.authenticator.renewal(token, this.#identity, refreshToken);
    // The socket may have closed meanwhile. An entry under the new token's names would never be removed.
    if (this.#detached) return;
    if (identity.userId !== this.#identity.userId) throw new TollgateError('USER_MISMATCH');
    if (refreshToken !== undefined && identity.tokenId === this.#identity.tokenId) return this.token.handOver(identity);
    if (identity.tokenExpiresAt <= this.#identity.tokenExpiresAt) {
      const text = 'Authentication failed: validation of the new credential found that it does not last longer.';
      throw new TollgateError('VALIDATION_FAILED', { text });
    }
    if (this.#isRevoked(identity)) throw new TollgateError('TOKEN_REVOKED');
    this.#applyIdentity(identity);
    // Not awaited: the reply to the client does not depend on the registration.
    void this.token.renewed();
  }

  renew(identity: Identity): boolean {
    if (this.#isRevoked(identity)) return false;
    this.#applyIdentity(identity);
    return true;
  }

  /** Checked again after verification, because the token may have been revoked during the `await`. */
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

  /** Ends the attachment after its token or login session was revoked. */
  revoke(): void {
    if (!this.#detached) this.#events.onTerminated('TOKEN_REVOKED');
  }

  /** Applies the stored account after an invalidation: block, revocation time, plan. */
  applyAccount(account: Account): void {
    if (this.#detached) return;
    this.#account = account;
    this.#revokedBefore = account.revokedBefore;
    if (account.blocked) return this.#events.onTerminated('USER_BLOCKED');
    if (this.#identity.tokenIssuedAt < account.revokedBefore) return this.revoke();
    // The admission in flight may return an older plan. `#admit` applies this account after it.
    if (this.#admitting) return;
    const before = this.#identity.plan;
    this.#storedPlan = account.plan;
    this.#applyPlan();
    if (this.#identity.plan !== before) this.#events.onPlanChanged();
  }

  /** Handles the result of a lease renewal. */
  leaseRenewed(state: LeaseState, epoch: string, seq: number): void {
    if (state === 'evicted') this.#events.onTerminated('CONNECTION_LIMIT_EXCEEDED');
    else if (state === 'closed') this.#events.onTerminated('CONNECTION_CLOSED');
    else if (state === 'missing') void this.#readmit();
    else this.cursor.noteHead(epoch, seq);
  }

  /** Releases the lease and ends the delivery of events. Revocations and blocks apply until `detach`. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.cursor.stop();
    this.#release();
    this.token.end();
  }

  /** Releases all resources. Does not wait and does not throw. */
  detach(): void {
    if (this.#detached) return;
    this.#detached = true;
    this.leave();
    this.#deps.liveAttachments.remove(this);
    this.#deps.liveTail.leave(this.#identity.userId, this);
  }

  async #admit(): Promise<Admission> {
    const accountBefore = this.#account;
    const admission = await this.#deps.tracing.span('admit', {}, () => this.#requestAdmission());
    this.#admissionOrder = admission.order;
    this.#revokedBefore = Math.max(this.#revokedBefore, admission.revokedBefore);
    this.#storedPlan = admission.storedPlan;
    this.#applyPlan();
    // Only if an invalidation arrived while the admission was in flight: otherwise the admission's result is newer.
    if (this.#account && this.#account !== accountBefore) this.applyAccount(this.#account);
    // The socket may have closed meanwhile. Without the release its lease would count until it expires.
    if (this.#left) this.#release();
    return admission;
  }

  async #requestAdmission(): Promise<Admission> {
    const { userId, tokenIssuedAt } = this.#identity;
    this.#admissionRequested = true;
    this.#admitting = true;
    const { registry, revocations } = this.#deps;
    const registration = this.token.registration();
    try {
      const admitted = registry.admit({
        userId,
        plan: this.#tokenIdentity.plan,
        tokenIssuedAt,
        connectionId: this.connectionId,
        details: { ...this.#events.details, ...ofToken(this.#tokenIdentity) },
        token: registration?.token,
        ...(this.#admissionOrder === undefined ? {} : { order: this.#admissionOrder }),
      });
      // Sent in the same round trip, because this node may not have received a recent revocation yet. The admission
      // script checks the revocation time of the user.
      const [admission, revoked] = await Promise.all([admitted, revocations.any(subjectsOf(this.#identity))]);
      if (revoked) throw new TollgateError('TOKEN_REVOKED');
      if (registration) void this.token.registered(registration, admission.registered);
      return admission;
    } finally {
      this.#admitting = false;
    }
  }

  /** Requests admission again after the lease expired in an outage, with the old admission order. The cap applies. */
  async #readmit(): Promise<void> {
    if (this.#left) return;
    try {
      await this.#admit();
      if (!this.#left) this.cursor.catchUp();
    } catch (error) {
      if (error instanceof TollgateError && isRefusalCode(error.code)) this.#events.onTerminated(error.code);
      else this.#log('warn', error, 'readmission failed, retrying at the next lease renewal');
    }
  }

  #release(): void {
    // Also after a failed admission: Redis may have granted it and only the reply was lost.
    if (!this.#admissionRequested) return;
    this.#deps.registry
      .release(this.#identity.userId, [this.connectionId], this.token.sessionEntry)
      .catch((error: Error) => {
        this.#log('debug', error, 'lease release failed, it will expire');
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

  // TailListener

  onEntry(entry: LogEntry): void {
    this.cursor.onLiveEntry(entry);
  }

  onGap(): void {
    this.cursor.catchUp();
    void this.token.lookUp();
  }

  onControl(control: Readonly<Record<string, unknown>>): void {
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

/** What the registry stores of a token. */
function ofToken({ plan, email, sessionId }: Identity): Pick<ConnectionDetails, 'plan' | 'email' | 'session_id'> {
  return {
    plan,
    ...(email !== undefined && { email }),
    ...(sessionId !== undefined && { session_id: sessionId }),
  };
}
