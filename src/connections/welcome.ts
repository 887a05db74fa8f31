import type { Permissions } from '../catalogue/permissions.ts';
import type { Plans } from '../catalogue/plans.ts';
import type { MessageLimiter } from '../limits/message-limiter.ts';
import type { FormatName } from '../protocol/dialects.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Fields } from '../protocol/messages.ts';
import { type ConnectionLimits, maxMessageBytes } from './limits.ts';

interface WelcomedConnection {
  readonly connectionId: string;
  readonly threadId: string;
  readonly identity: Identity;
}

/** Builds the fields about identity and limits for the welcome, `auth_success` and `plan_changed`. */
export class Welcome {
  readonly #deps: { plans: Plans; permissions: Permissions; messageLimiter: Pick<MessageLimiter, 'limitOf'> };
  readonly #limits: ConnectionLimits;

  constructor(
    deps: { plans: Plans; permissions: Permissions; messageLimiter: Pick<MessageLimiter, 'limitOf'> },
    limits: ConnectionLimits,
  ) {
    this.#deps = deps;
    this.#limits = limits;
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

  /** Fields of `auth_success`. */
  forAuthenticated(connection: WelcomedConnection, format: FormatName): Fields {
    const { connectionId: connection_id, threadId: thread_id, identity } = connection;
    return { connection_id, thread_id, limits: this.limits(identity.plan, format), ...this.identity(identity) };
  }

  identity(identity: Identity): Fields {
    return {
      user_id: identity.userId,
      plan: identity.plan,
      permissions: this.#deps.permissions.of(identity),
      token_expires_at: new Date(identity.tokenExpiresAt).toISOString(),
      ...(identity.tenant === undefined ? {} : { tenant: identity.tenant }),
      ...(identity.displayName === undefined ? {} : { display_name: identity.displayName }),
    };
  }
}
