import type { InBandCredential } from '../auth/credentials.ts';
import type { RunRequest, StartedRun } from '../jobs.ts';
import { derivedId, newId } from '../lib/ids.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { ClientFields, ClientMessageType, Fields, ServerEventType } from '../protocol/messages.ts';

/** What a handler answers; undefined when the connection has ended. */
export type Reply =
  | {
      readonly type: ServerEventType;
      readonly fields: Fields;
      /** It went out as an event already: only a request that waits for an answer of its own gets it once more. */
      readonly sentAsEvent?: true;
    }
  | undefined;

/** The connection as its handlers see it. */
export interface ConnectionContext {
  readonly connectionId: string;
  /** The thread of requests that name none; where the plan allowed no further thread, the one that the first of them got. */
  threadId: string;
  /** Who speaks. @throws TollgateError NO_TOKEN before authentication */
  readonly identity: Identity;
  /** Whether the token could not be refreshed for too long: contract section 4. */
  readonly degraded: boolean;
  /** The road the request came by, as usage records name it. */
  readonly transportName: 'websocket' | 'socketio' | 'mcp';
  now(): Date;
  authenticate(presented: InBandCredential): Promise<Reply>;
  /** @param token undefined to have the one in use refreshed now */
  renewToken(token: string | undefined): Promise<Reply>;
  /** @param allowed settles before anything is delivered */
  resume(after: number, epoch: string, allowed: Promise<void>): Promise<Reply>;
}

/** What this part needs from agents. */
export interface RunsPort {
  /**
   * Starts a run, once per request id.
   * @param allowed settles when the message limit has been asked; a run whose message was refused must not start
   * @throws TollgateError AGENT_NOT_FOUND, RATE_LIMITED, QUOTA_EXCEEDED, OVERLOADED
   */
  start(request: RunRequest, allowed: Promise<void>): Promise<StartedRun>;
  /** @param allowed as for `start` @throws TollgateError RATE_LIMITED, OVERLOADED */
  cancel(identity: Identity, runId: string, allowed: Promise<void>): Promise<'asked' | 'missing' | 'finished'>;
}

export interface ThreadsPort {
  list(userId: string): Promise<readonly object[]>;
  history(
    userId: string,
    page: { readonly threadId: string; readonly before: string | undefined; readonly limit: number },
  ): Promise<{ readonly messages: readonly Fields[]; readonly before: string | null }>;
}

/** A tool call as a connection asks for it. */
export interface ToolCallRequest {
  readonly userId: string;
  readonly caller: Pick<Identity, 'plan' | 'permissions' | 'roles' | 'featureFlags'> & { readonly degraded: boolean };
  readonly tool: string;
  readonly args: Fields;
  readonly callId: string;
  readonly threadId: string;
  readonly requestId: string | null;
  readonly idempotencyKey: string | null;
  readonly transport: string;
}

export interface ToolsPort {
  describe(identity: Identity): readonly object[];
  /**
   * Begins a tool call; `finished` settles with its result. @param allowed as for `RunsPort.start`
   * @throws TollgateError for a refusal
   */
  call(request: ToolCallRequest, allowed: Promise<void>): Promise<{ readonly finished: Promise<object> }>;
  /** What the caller has used, and what is left. @throws TollgateError OVERLOADED */
  usage(identity: Identity): Promise<object>;
}

/** An answer that comes when it is there: the messages behind this one do not wait for it. */
export interface Later {
  readonly later: Promise<Reply>;
}

/** One message type's handler, and what the connection does around it. */
export interface Handler<T extends ClientMessageType> {
  readonly handle: (ctx: ConnectionContext, fields: ClientFields<T>, allowed: Promise<void>) => Promise<Reply | Later>;
  /**
   * Runs beside the question whether the message is within its limit, in the same flight to Redis, and waits for the
   * answer itself before anything takes effect or is told.
   */
  readonly startsBeforeLimit?: true;
  /** Answers later: of such messages a connection has a few under way at once, see `Inbox`. */
  readonly outOfOrder?: true;
  /** Live events wait until the reply is sent, so that no event of a run comes before its `agent_accepted`. */
  readonly pausesEvents?: true;
}

export type Handlers = { readonly [T in ClientMessageType]: Handler<T> };

/** What to do with each message: the table that the connection looks into. */
export function createHandlers(ports: { runs: RunsPort; threads: ThreadsPort; tools: ToolsPort }): Handlers {
  const { runs, threads, tools } = ports;
  return {
    ping: {
      async handle(ctx, { timestamp }) {
        const fields = { original_timestamp: timestamp ?? null, server_time: ctx.now().toISOString() };
        return { type: 'pong', fields };
      },
    },
    heartbeat: {
      handle: async (ctx) => ({ type: 'heartbeat_ack', fields: { connection_id: ctx.connectionId } }),
    },
    auth: { handle: (ctx, { token }) => ctx.authenticate({ kind: 'user', token }) },
    service_auth: {
      handle: (ctx, { token, service_id: serviceId, context }) => {
        return ctx.authenticate({ kind: 'service', token, serviceId, context });
      },
    },
    token_refresh: { handle: (ctx, { token }) => ctx.renewToken(token) },
    resume: {
      startsBeforeLimit: true,
      handle: (ctx, { after, epoch }, allowed) => ctx.resume(after, epoch, allowed),
    },
    typing: {
      // A courtesy that nobody has to answer; only a request that waits for an answer gets one.
      handle: async (_ctx, { request_id }) => ({ type: 'typing_ack', fields: { request_id }, sentAsEvent: true }),
    },
    agent_request: {
      startsBeforeLimit: true,
      pausesEvents: true,
      async handle(ctx, fields, allowed) {
        const request = runRequest(ctx, fields);
        const { requestId: request_id } = request;
        const { isRepeated, ...accepted } = await runs.start(request, allowed).catch((error: unknown) => {
          // Also an id that was made here: repeated with it, a request that did arrive is not run twice.
          throw toTollgateError(error).with({ request_id });
        });
        if (request.isThreadImplied && !isRepeated) ctx.threadId = accepted.thread_id;
        return { type: 'agent_accepted', fields: { ...accepted, request_id } };
      },
    },
    agent_cancel: {
      startsBeforeLimit: true,
      async handle(ctx, { run_id, request_id }, allowed) {
        const answer = await runs.cancel(ctx.identity, run_id, allowed);
        if (answer === 'missing') throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id } });
        return { type: 'cancel_accepted', fields: { run_id, request_id, already_ended: answer === 'finished' } };
      },
    },
    tool_call: {
      startsBeforeLimit: true,
      outOfOrder: true,
      async handle(ctx, fields, allowed) {
        const { finished } = await tools.call(toolCall(ctx, fields), allowed);
        return { later: finished.then((result) => toolResult(fields.request_id, result)) };
      },
    },
    usage_summary: {
      startsBeforeLimit: true,
      async handle(ctx, { request_id }, allowed) {
        const [summary] = await Promise.all([tools.usage(ctx.identity), allowed]);
        return { type: 'usage_summary', fields: { ...summary, request_id } };
      },
    },
    tools_list: {
      async handle(ctx, { request_id }) {
        return { type: 'tools_list', fields: { tools: tools.describe(ctx.identity), request_id } };
      },
    },
    threads_list: {
      startsBeforeLimit: true,
      async handle(ctx, { request_id }, allowed) {
        const [found] = await Promise.all([threads.list(ctx.identity.userId), allowed]);
        return { type: 'threads_list', fields: { threads: found, request_id } };
      },
    },
    thread_history: {
      startsBeforeLimit: true,
      async handle(ctx, { thread_id, before, limit, request_id }, allowed) {
        const reading = threads.history(ctx.identity.userId, { threadId: thread_id, before, limit });
        const [page] = await Promise.all([reading, allowed]);
        return { type: 'thread_history', fields: { thread_id, ...page, request_id } };
      },
    },
  };
}

/** The id of a call follows from its idempotency key, so that a repeated one means the same call on every node. */
function toolCall(ctx: ConnectionContext, fields: ClientFields<'tool_call'>): ToolCallRequest {
  const { userId, plan, permissions, roles, featureFlags } = ctx.identity;
  const { idempotency_key: key, request_id } = fields;
  return {
    userId,
    caller: { plan, permissions, roles, featureFlags, degraded: ctx.degraded },
    tool: fields.tool,
    args: fields.arguments,
    callId: key === undefined ? newId('call') : derivedId('call', userId, key),
    threadId: ctx.threadId,
    requestId: request_id ?? null,
    idempotencyKey: key ?? null,
    transport: ctx.transportName,
  };
}

function toolResult(request_id: string | undefined, result: object): Reply {
  return { type: 'tool_result', fields: { ...result, request_id } };
}

function runRequest(ctx: ConnectionContext, fields: ClientFields<'agent_request'>): RunRequest {
  const requestId = fields.request_id ?? newId('req');
  return {
    identity: ctx.identity,
    connectionId: ctx.connectionId,
    requestId,
    runId: derivedId('run', ctx.identity.userId, requestId),
    threadId: fields.thread_id ?? ctx.threadId,
    isThreadImplied: fields.thread_id === undefined,
    agent: fields.agent,
    message: fields.message,
    transport: ctx.transportName,
    degraded: ctx.degraded,
  };
}
