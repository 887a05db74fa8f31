import type { Permissions } from '../catalogue/permissions.ts';
import type { Plans } from '../catalogue/plans.ts';
import type { Admission } from '../cluster/connection-registry.ts';
import type { Clock } from '../lib/clock.ts';
import type { MessageLimiter } from '../limits/message-limiter.ts';
import type { FormatName } from '../protocol/dialects.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import { type ConnectionLimits, maxMessageBytes } from './limits.ts';
import type { Transport } from './transport.ts';

export interface WelcomeDeps {
  readonly plans: Plans;
  readonly permissions: Permissions;
  readonly messageLimiter: Pick<MessageLimiter, 'limitOf'>;
  readonly clock: Clock;
  readonly nodeId: string;
}

/** The authenticated user of a new connection. */
interface AdmittedUser {
  readonly identity: Identity;
  /** Thread of requests that name none. */
  readonly threadId: string;
  /** Undefined for a repeated authentication. */
  readonly admission: Admission | undefined;
}

/** Builds the fields about identity and limits for the welcome, `auth_success` and `plan_changed`. */
export class Welcome {
  readonly #deps: WelcomeDeps;
  readonly #limits: ConnectionLimits;

  constructor(deps: WelcomeDeps, limits: ConnectionLimits) {
    this.#deps = deps;
    this.#limits = limits;
  }

  /** Fields of `connection_established`. @param user undefined before authentication */
  established(
    connection_id: string,
    { endpoint, format }: Pick<Transport, 'endpoint' | 'format'>,
    user: AdmittedUser | undefined,
  ): Fields {
    return {
      connection_id,
      endpoint,
      format,
      server_time: new Date(this.#deps.clock.now()).toISOString(),
      server_id: this.#deps.nodeId,
      limits: this.limits(user?.identity.plan, format),
      authenticated: user !== undefined,
      ...(user && this.#user(user)),
    };
  }

  /** Fields of `auth_success`. */
  authenticated(connection_id: string, { format }: Pick<Transport, 'format'>, user: AdmittedUser): Fields {
    return { connection_id, limits: this.limits(user.identity.plan, format), ...this.#user(user) };
  }

  /** @param plan undefined before authentication */
  limits(plan: string | undefined, format: FormatName): Fields {
    const { plans, messageLimiter } = this.#deps;
    const connections = plan === undefined ? undefined : plans.effective(plan).connections;
    return {
      max_connections_per_user: connections ?? this.#limits.maxConnectionsPerUser,
      max_message_size: maxMessageBytes(this.#limits, format),
      max_message_rate: messageLimiter.limitOf(plan ?? ''),
      heartbeat_interval: this.#limits.heartbeatMs / 1000,
      connection_timeout: this.#limits.idleTimeoutMs / 1000,
    };
  }

  identity(identity: Identity) {
    return {
      user_id: identity.userId,
      plan: identity.plan,
      permissions: this.#deps.permissions.of(identity),
      token_expires_at: new Date(identity.tokenExpiresAt).toISOString(),
      ...(identity.tenant === undefined ? {} : { tenant: identity.tenant }),
      ...(identity.displayName === undefined ? {} : { display_name: identity.displayName }),
    };
  }

  #user({ identity, threadId: thread_id, admission }: AdmittedUser): Fields {
    const admitted = admission && { auth_method: identity.method, epoch: admission.epoch, seq: admission.seq };
    return { thread_id, ...admitted, ...this.identity(identity) };
  }
}
