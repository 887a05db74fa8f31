import type { RunRequest, RunStatus, StartedRun } from '../jobs.ts';
import type { Clock } from '../lib/clock.ts';
import { derivedId, newId } from '../lib/ids.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { InputAnswer, InputRequest } from '../protocol/input.ts';
import type { ClientFields, ClientMessageType, Fields, UserOf } from '../protocol/messages.ts';
import { type ToolCallRequest, type ToolsPort, toolCallRequest } from '../tools/tool-call.ts';
import type { MessageContext, Reply } from './connection-context.ts';

export interface RunsPort {
  /**
   * Starts a run, once per request id.
   * @param limit no run starts above it
   * @throws TollgateError AGENT_NOT_FOUND, RATE_LIMITED, QUOTA_EXCEEDED, OVERLOADED
   */
  start(request: RunRequest, limit: MessageLimit): Promise<StartedRun>;
  /** @throws TollgateError RATE_LIMITED, OVERLOADED */
  cancel(userId: string, runId: string, limit: MessageLimit): Promise<'asked' | 'missing' | 'finished'>;
  /** @throws TollgateError OVERLOADED */
  status(userId: string, runId: string): Promise<RunStatus>;
}

export interface RunInputsPort {
  /**
   * Answers an input request of a run; the first answer counts.
   * @throws TollgateError RUN_NOT_FOUND, INPUT_NOT_FOUND, INPUT_ALREADY_ANSWERED, INPUT_EXPIRED, FORMAT_ERROR,
   *   OVERLOADED
   */
  answer(
    userId: string,
    response: {
      readonly runId: string;
      readonly inputId: string;
      readonly answer: InputAnswer;
      /** Answers only a request of this kind. */
      readonly kind?: InputRequest['kind'];
    },
  ): Promise<{ readonly repeated: boolean }>;
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
  readonly handle: (ctx: MessageContext<UserOf<T>>, fields: ClientFields<T>) => Promise<Reply | Later>;
  /**
   * Starts in parallel with the message limiter, in the same round trip to Redis. The handler awaits
   * `ctx.limit.allowed` itself before it changes or reveals anything.
   */
  readonly startsBeforeLimit?: true;
  /** Answers out of order. At most `OUT_OF_ORDER_LIMIT` such messages per connection are in flight. */
  readonly outOfOrder?: true;
  /** Pauses live events until the reply is sent, so that no event of a run precedes its `agent_accepted`. */
  readonly pausesEvents?: true;
}

export type Handlers = { readonly [T in ClientMessageType]: Handler<T> };

export interface HandlerPorts {
  readonly runs: RunsPort;
  readonly inputs: RunInputsPort;
  readonly threads: ThreadsPort;
  readonly tools: ToolsPort;
  readonly clock: Clock;
}

/** Creates the table of handlers by message type. */
export function createHandlers(ports: HandlerPorts): Handlers {
  const { runs, inputs, threads, tools, clock } = ports;
  return {
    ping: {
      async handle(_ctx, { timestamp }) {
        const server_time = new Date(clock.now()).toISOString();
        const fields = { original_timestamp: timestamp ?? null, server_time };
        return { type: 'pong', fields };
      },
    },
    heartbeat: {
      handle: async ({ connection }) => {
        return { type: 'heartbeat_ack', fields: { connection_id: connection.connectionId } };
      },
    },
    auth: {
      handle: ({ connection }, { token, refresh_token: refreshToken }) => {
        return connection.authenticate({ kind: 'user', token, refreshToken });
      },
    },
    service_auth: {
      handle: ({ connection }, { token, service_id: serviceId, context }) => {
        return connection.authenticate({ kind: 'service', token, serviceId, context });
      },
    },
    token_refresh: { handle: ({ connection }, fields) => connection.renewToken(fields.token, fields.refresh_token) },
    resume: {
      startsBeforeLimit: true,
      handle: ({ connection, limit }, { after, epoch }) => connection.resume(after, epoch, limit),
    },
    typing: {
      // Needs no reply; only a request with its own acknowledgement receives one.
      handle: async (_ctx, { request_id }) => ({ type: 'typing_ack', fields: { request_id }, sentAsEvent: true }),
    },
    agent_request: {
      startsBeforeLimit: true,
      pausesEvents: true,
      async handle(ctx, fields) {
        const request = runRequest(ctx, fields);
        const { requestId: request_id } = request;
        const { isRepeated, ...accepted } = await runs.start(request, ctx.limit).catch((error: unknown) => {
          // Includes an id that this node generated: a client that repeats the request with it starts no second run.
          throw toTollgateError(error).with({ request_id });
        });
        if (request.isThreadImplied && !isRepeated) ctx.connection.threadId = accepted.thread_id;
        return { type: 'agent_accepted', fields: { ...accepted, request_id } };
      },
    },
    agent_cancel: {
      startsBeforeLimit: true,
      async handle({ identity, limit }, { run_id, request_id }) {
        const answer = await runs.cancel(identity.userId, run_id, limit);
        if (answer === 'missing') throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id } });
        return { type: 'cancel_accepted', fields: { run_id, request_id, already_ended: answer === 'finished' } };
      },
    },
    run_status: {
      startsBeforeLimit: true,
      async handle({ identity: { userId }, limit }, { run_id, request_id }) {
        const runId = run_id ?? runIdOf(userId, request_id ?? '');
        const [status] = await Promise.all([runs.status(userId, runId), limit.allowed]);
        const { requestId, threadId: thread_id, ...state } = status;
        return {
          type: 'run_status',
          fields: { run_id: runId, request_id: request_id ?? requestId, thread_id, ...state },
        };
      },
    },
    input_response: {
      async handle({ identity }, { run_id, input_id, action, content, request_id }) {
        const answer = { action, ...(content && { content }) };
        const { repeated } = await inputs.answer(identity.userId, { runId: run_id, inputId: input_id, answer });
        return { type: 'input_accepted', fields: { run_id, input_id, action, repeated, request_id } };
      },
    },
    tool_call: {
      startsBeforeLimit: true,
      outOfOrder: true,
      async handle(ctx, fields) {
        const { finished } = await tools.call(toolCall(ctx, fields), ctx.limit);
        return { later: finished.then((result) => toolResult(fields.request_id, result)) };
      },
    },
    usage_summary: {
      startsBeforeLimit: true,
      async handle({ identity, limit }, { request_id }) {
        const [summary] = await Promise.all([tools.usage(identity), limit.allowed]);
        return { type: 'usage_summary', fields: { ...summary, request_id } };
      },
    },
    tools_list: {
      async handle({ identity }, { request_id }) {
        return { type: 'tools_list', fields: { tools: tools.describe(identity), request_id } };
      },
    },
    threads_list: {
      startsBeforeLimit: true,
      async handle({ identity, limit }, { request_id }) {
        const [found] = await Promise.all([threads.list(identity.userId), limit.allowed]);
        return { type: 'threads_list', fields: { threads: found, request_id } };
      },
    },
    thread_history: {
      startsBeforeLimit: true,
      async handle({ identity, limit: { allowed } }, { thread_id, before, limit, request_id }) {
        const reading = threads.history(identity.userId, { threadId: thread_id, before, limit });
        const [page] = await Promise.all([reading, allowed]);
        return { type: 'thread_history', fields: { thread_id, ...page, request_id } };
      },
    },
  };
}

function toolCall({ connection, identity }: MessageContext, fields: ClientFields<'tool_call'>): ToolCallRequest {
  const { degraded, threadId } = connection;
  return toolCallRequest(
    { identity, degraded, threadId },
    {
      tool: fields.tool,
      args: fields.arguments,
      transport: connection.transportName,
      requestId: fields.request_id,
      idempotencyKey: fields.idempotency_key,
    },
  );
}

function toolResult(request_id: string | undefined, result: object): Reply {
  return { type: 'tool_result', fields: { ...result, request_id } };
}

/** Derives the id of the run that a request starts: the same on every node. */
function runIdOf(userId: string, requestId: string): string {
  return derivedId('run', userId, requestId);
}

function runRequest({ connection, identity }: MessageContext, fields: ClientFields<'agent_request'>): RunRequest {
  const requestId = fields.request_id ?? newId('req');
  return {
    identity,
    connectionId: connection.connectionId,
    requestId,
    runId: runIdOf(identity.userId, requestId),
    threadId: fields.thread_id ?? connection.threadId,
    isThreadImplied: fields.thread_id === undefined,
    agent: fields.agent,
    message: fields.message,
    transport: connection.transportName,
    degraded: connection.degraded,
  };
}
