import type { InBandCredential } from '../auth/credentials.ts';
import type { RunRequest, StartedRun } from '../jobs.ts';
import { derivedId, newId } from '../lib/ids.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { ClientFields, ClientMessageType, Fields, ServerEventType } from '../protocol/messages.ts';
import { type ToolCallRequest, type ToolsPort, toolCallRequest } from '../tools/tool-call.ts';

/** Answer of a handler; undefined when the connection has closed. */
export type Reply =
  | {
      readonly type: ServerEventType;
      readonly fields: Fields;
      /** The reply was already sent as an event. Only a request with its own acknowledgement receives it again. */
      readonly sentAsEvent?: true;
    }
  | undefined;

/** The connection as message handlers see it. */
export interface ConnectionContext {
  readonly connectionId: string;
  /**
   * Thread of requests that name none. If the plan allowed no further thread, this is the thread that the first of
   * these requests received.
   */
  threadId: string;
  /** @throws TollgateError NO_TOKEN before authentication */
  readonly identity: Identity;
  /** Whether the token could not be refreshed, so that only free tools remain available (docs/protocol.md). */
  readonly degraded: boolean;
  /** Transport of the request, as usage records name it. */
  readonly transportName: 'websocket' | 'socketio' | 'mcp';
  now(): Date;
  authenticate(presented: InBandCredential): Promise<Reply>;
  /** @param token undefined to refresh the current token now */
  renewToken(token: string | undefined): Promise<Reply>;
  /** @param allowed settles when the message limiter has decided; no event is delivered before */
  resume(after: number, epoch: string, allowed: Promise<void>): Promise<Reply>;
}

export interface RunsPort {
  /**
   * Starts a run, once per request id.
   * @param allowed settles when the message limiter has decided; a run must not start if it rejects
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

/** An answer out of order: later messages do not wait for it. */
export interface Later {
  readonly later: Promise<Reply>;
}

/** The handler of one message type, and how the dispatcher runs it. */
export interface Handler<T extends ClientMessageType> {
  readonly handle: (ctx: ConnectionContext, fields: ClientFields<T>, allowed: Promise<void>) => Promise<Reply | Later>;
  /**
   * Starts in parallel with the message limiter, in the same round trip to Redis. The handler awaits `allowed` itself
   * before it changes or reveals anything.
   */
  readonly startsBeforeLimit?: true;
  /** Answers out of order. At most `OUT_OF_ORDER_LIMIT` such messages per connection are in flight. */
  readonly outOfOrder?: true;
  /** Pauses live events until the reply is sent, so that no event of a run precedes its `agent_accepted`. */
  readonly pausesEvents?: true;
}

export type Handlers = { readonly [T in ClientMessageType]: Handler<T> };

/** Creates the table of handlers by message type. */
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
      // Needs no reply; only a request with its own acknowledgement receives one.
      handle: async (_ctx, { request_id }) => ({ type: 'typing_ack', fields: { request_id }, sentAsEvent: true }),
    },
    agent_request: {
      startsBeforeLimit: true,
      pausesEvents: true,
      async handle(ctx, fields, allowed) {
        const request = runRequest(ctx, fields);
        const { requestId: request_id } = request;
        const { isRepeated, ...accepted } = await runs.start(request, allowed).catch((error: unknown) => {
          // Includes an id that this node generated: a client that repeats the request with it starts no second run.
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

function toolCall(ctx: ConnectionContext, fields: ClientFields<'tool_call'>): ToolCallRequest {
  return toolCallRequest(ctx, {
    tool: fields.tool,
    args: fields.arguments,
    transport: ctx.transportName,
    requestId: fields.request_id,
    idempotencyKey: fields.idempotency_key,
  });
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
