import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Accounts } from '../accounts/accounts.ts';
import type { Authenticator } from '../auth/authenticator.ts';
import type { Plans } from '../catalogue/plans.ts';
import type { RunsPort } from '../connections/handlers.ts';
import type { Handshake } from '../connections/handshake.ts';
import type { ConnectionLimits } from '../connections/limits.ts';
import type { InputWatch } from '../http/app.ts';
import { allowOrigins, type OriginCheck } from '../http/cors.ts';
import type { LocatedRun, RunRequest, StartedRun } from '../jobs.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import { countMessage, type MessageLimit, type MessageLimitDeps, rejectIfBlocked } from '../limits/message-limit.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { checkJsonBounds, type JsonBounds } from '../protocol/json-bounds.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import type { ConnectionGuard } from '../transports/connection-guard.ts';
import type { StreamEncoder } from '../transports/event-stream-transport.ts';
import type { EventStreams, StreamRequest } from '../transports/event-streams.ts';
import { presentedCredentials } from '../transports/handshake-request.ts';

/**
 * Largest body of a chat request: the clients of others send the whole conversation with each message, tool results
 * included.
 */
const BODY_LIMIT_BYTES = 1024 * 1024;
const BODY_BOUNDS: JsonBounds = { maxDepth: 64, maxValues: 50_000 };

/** Response headers of front ends that their clients read. */
const RESPONSE_HEADERS = ['Location', 'X-Workflow-Run-Id', 'X-Workflow-Stream-Tail-Index'];

export interface FrontEndDeps extends MessageLimitDeps {
  readonly authenticator: Pick<Authenticator, 'handshake'>;
  readonly guard: Pick<ConnectionGuard, 'register'>;
  readonly accounts: Pick<Accounts, 'admit'>;
  readonly plans: Plans;
  readonly refusals: RefusalSink;
  readonly runs: RunsPort & {
    locate(
      userId: string,
      run: { readonly runId?: string; readonly threadId?: string },
    ): Promise<LocatedRun | undefined>;
  };
  readonly streams: Pick<EventStreams, 'open'>;
  readonly origins: OriginCheck;
  readonly allowedOrigins: readonly string[];
  readonly limits: Pick<ConnectionLimits, 'maxMessageBytes'>;
  /** Milliseconds after which clients should try another node; undefined unless this node is draining. */
  readonly drainRetryMs: () => number | undefined;
  readonly watch: Pick<InputWatch, 'run'>;
  readonly clock: Clock;
}

/** The authenticated client of a request. */
export interface Caller {
  readonly identity: Identity;
  readonly handshake: Handshake;
}

/** The path of a route as the metrics label it, for example `/v1/runs/{run_id}/events`. */
export function endpointOf({ routeOptions }: FastifyRequest): string {
  return (routeOptions.url ?? '').replaceAll(/:(\w+)/g, '{$1}');
}

/**
 * Routes of a front end, in a scope of their own: CORS, the origin check, draining, authentication by bearer token or
 * ticket, and the bounds of bodies. All of these precede the body.
 */
export class FrontEndScope {
  readonly #deps: FrontEndDeps;
  readonly #callers = new WeakMap<FastifyRequest, Caller>();

  constructor(deps: FrontEndDeps) {
    this.#deps = deps;
  }

  /** @param headers request headers that pages can send in addition to `Authorization` and `Content-Type` */
  register(app: FastifyInstance, headers: readonly string[], routes: (scope: FastifyInstance) => void): void {
    app.register(async (scope) => {
      allowOrigins(scope, this.#deps.allowedOrigins, headers, RESPONSE_HEADERS);
      this.#parseBodies(scope);
      scope.addHook('onRequest', async (request) => this.#authenticate(request));
      scope.addHook('onError', async (request, _reply, error) => {
        const caller = this.#callers.get(request);
        if (caller) this.#deps.refusals.refused(caller.identity.userId, toTollgateError(error));
      });
      routes(scope);
    });
  }

  caller(request: FastifyRequest): Caller {
    const caller = this.#callers.get(request);
    if (!caller) throw new Error('the route has no guard');
    return caller;
  }

  /**
   * Starts a run within the message limit, once per request id.
   * @throws TollgateError MESSAGE_TOO_LARGE, and the errors of `RunsPort.start`
   */
  async start(
    request: FastifyRequest,
    run: Omit<RunRequest, 'identity' | 'connectionId' | 'degraded'>,
  ): Promise<StartedRun> {
    const { maxMessageBytes } = this.#deps.limits;
    const size = Buffer.byteLength(run.message);
    if (size > maxMessageBytes) {
      throw new TollgateError('MESSAGE_TOO_LARGE', { fields: { max_message_size: maxMessageBytes, size } });
    }
    const { identity } = this.caller(request);
    // No connection: the connection of a stream exists only after the run has been accepted.
    const accepted = { ...run, identity, connectionId: newId('req'), degraded: false };
    return this.#deps.runs.start(accepted, this.countMessage(identity)).catch((error: unknown) => {
      throw toTollgateError(error).with({ request_id: run.requestId });
    });
  }

  /** Counts a request as a message of its user. @throws TollgateError RATE_LIMITED */
  countMessage(identity: Identity): MessageLimit {
    rejectIfBlocked(this.#deps, identity);
    return countMessage(this.#deps, identity);
  }

  /**
   * Finds a run by its id or as the latest of a thread; undefined for runs of others.
   * @throws TollgateError OVERLOADED
   */
  find(userId: string, run: { readonly runId?: string; readonly threadId?: string }): Promise<LocatedRun | undefined> {
    return this.#deps.runs.locate(userId, run);
  }

  /** As `find`, for a run whose events are all in the log. @throws TollgateError EVENTS_TRIMMED, OVERLOADED */
  async locate(
    userId: string,
    run: { readonly runId?: string; readonly threadId?: string },
  ): Promise<LocatedRun | undefined> {
    const located = await this.find(userId, run);
    if (located && located.after + 1 < located.oldest) {
      throw new TollgateError('EVENTS_TRIMMED', { fields: { run_id: located.runId } });
    }
    return located;
  }

  /** Answers a request with a stream. The handler returns the result, so that Fastify sends nothing itself. */
  async stream(
    request: FastifyRequest,
    reply: FastifyReply,
    options: Pick<StreamRequest, 'resumeFrom' | 'stream'> & { readonly encoder: StreamEncoder },
  ): Promise<FastifyReply> {
    const headers = reply.getHeaders();
    reply.hijack();
    const endpoint = endpointOf(request);
    const { identity, handshake } = this.caller(request);
    await this.#deps.streams.open({ ...options, response: reply.raw, headers, endpoint, identity, handshake });
    return reply;
  }

  async #authenticate(request: FastifyRequest): Promise<void> {
    const { origins, drainRetryMs, guard, authenticator, accounts, plans, refusals } = this.#deps;
    if (!origins.allow(request.raw)) throw new TollgateError('ORIGIN_NOT_ALLOWED');
    const retryAfterMs = drainRetryMs();
    if (retryAfterMs !== undefined) throw new TollgateError('SERVER_DRAINING', { retryAfterMs });
    const handshake = guard.register(request.raw, endpointOf(request));
    // The account is read after the handshake, so that a slow Redis does not make clients behind one proxy count as
    // pending connections of one address.
    const verified = await handshake
      .authenticate(async () => {
        const identity = await authenticator.handshake(presentedCredentials(request.raw));
        if (!identity) throw new TollgateError('NO_TOKEN');
        return identity;
      })
      .finally(() => handshake.release());
    const identity = await accounts.admit(verified, plans).catch((error: unknown) => {
      refusals.refused(verified.userId, toTollgateError(error));
      throw error;
    });
    this.#callers.set(request, { identity, handshake });
  }

  #parseBodies(scope: FastifyInstance): void {
    const parseJson = scope.getDefaultJsonParser('error', 'error');
    scope.removeAllContentTypeParsers();
    // The transport of Vercel's workflow package sends its JSON as text/plain.
    const types = ['application/json', 'text/plain'];
    scope.addContentTypeParser(types, { parseAs: 'string', bodyLimit: BODY_LIMIT_BYTES }, (request, body, done) => {
      if (body === '') return done(null, undefined);
      this.#deps.watch.run('http_body', request.raw, () => {
        try {
          checkJsonBounds(String(body), BODY_BOUNDS);
        } catch (error) {
          return done(toTollgateError(error));
        }
        parseJson(request, String(body), done);
      });
    });
  }
}
