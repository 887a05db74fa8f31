import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { ThreadsPort } from '../../connections/handlers.ts';
import { maxMessageBytes } from '../../connections/limits.ts';
import { BODY_ERRORS, typedRoutes, USER_TOKEN } from '../../http/route-docs.ts';
import { newId } from '../../lib/ids.ts';
import type { InFlight } from '../../mcp/in-flight.ts';
import { MESSAGE_BOUNDS } from '../../protocol/dialects.ts';
import { type ErrorCode, TollgateError, toTollgateError } from '../../protocol/errors.ts';
import { checkJsonBounds } from '../../protocol/json-bounds.ts';
import { CLIENT_MESSAGES } from '../../protocol/messages.ts';
import { type ToolCallRequest, type ToolsPort, toolCallRequest } from '../../tools/tool-call.ts';
import type { Caller, FrontEndDeps, FrontEndScope } from '../front-end-scope.ts';
import { REQUEST_ERRORS, RUN_TAGS } from './run-routes.ts';

const TOOLS_PATH = '/v1/tools';
const THREADS_PATH = '/v1/threads';
const USAGE_PATH = '/v1/usage';

const CALL_ERRORS: readonly ErrorCode[] = [
  ...REQUEST_ERRORS,
  ...BODY_ERRORS,
  'TOOL_NOT_FOUND',
  'TOOL_NOT_AVAILABLE',
  'PERMISSION_DENIED',
  'QUOTA_EXCEEDED',
  'IDEMPOTENCY_CONFLICT',
];

const ToolList = z
  .object({
    tools: z.array(
      z.looseObject({
        name: z.string(),
        description: z.string(),
        permission: z.string(),
        units: z.number(),
        arguments: z.record(z.string(), z.unknown()).describe('JSON Schema.'),
        available: z.boolean().describe('False if the deployment has no executor for the tool.'),
      }),
    ),
  })
  .meta({
    id: 'ToolList',
    examples: [
      {
        tools: [
          {
            name: 'list_agents',
            description: 'Lists the agents.',
            permission: 'basic',
            units: 0,
            arguments: { type: 'object' },
            available: true,
          },
        ],
      },
    ],
  });
const ToolPath = z.object({ tool: CLIENT_MESSAGES.tool_call.fields.shape.tool.describe('Name of the tool.') });
const ToolCall = z
  .object({
    ...CLIENT_MESSAGES.tool_call.fields.omit({ tool: true }).shape,
    thread_id: CLIENT_MESSAGES.agent_request.fields.shape.thread_id.describe(
      'Thread that the events of the call name. Default: a new one.',
    ),
  })
  .meta({ id: 'ToolCall', examples: [{ arguments: {}, idempotency_key: 'call_7' }] });
const ToolResult = z
  .object({
    tool: z.string(),
    tool_call_id: z.string(),
    success: z.boolean(),
    result: z.unknown().optional(),
    error: z.looseObject({}).optional().describe('Of a tool that failed: `code`, `message`, …'),
    duration_ms: z.number(),
    usage_record_id: z.string().nullable(),
    repeated: z.boolean().describe('The outcome is that of an earlier call under the same idempotency key.'),
    rate_limit_status: z
      .object({
        allowed: z.boolean(),
        limits: z.record(z.string(), z.number()),
        current_usage: z.record(z.string(), z.number()),
        limit: z.number().nullable().describe('That of the limit with the least remaining uses.'),
        used: z.number().nullable(),
        remaining: z.number().nullable(),
        resets_at: z.string().nullable(),
      })
      .nullable()
      .describe('Null when no limit was checked.'),
    request_id: z.string().optional(),
  })
  .meta({
    id: 'ToolResult',
    examples: [
      {
        tool: 'list_agents',
        tool_call_id: 'call_8Qw2',
        success: true,
        result: { agents: ['triage_agent'] },
        duration_ms: 2,
        usage_record_id: 'usage_5Hb2',
        repeated: false,
        rate_limit_status: null,
      },
    ],
  });
const ThreadList = z
  .object({
    threads: z.array(
      z.object({ thread_id: z.string(), title: z.string(), created_at: z.string(), updated_at: z.string() }),
    ),
  })
  .meta({
    id: 'ThreadList',
    examples: [
      {
        threads: [
          {
            thread_id: 'thread_support-42',
            title: 'How is my workload doing?',
            created_at: '2026-11-30T12:00:00.000Z',
            updated_at: '2026-11-30T12:00:01.000Z',
          },
        ],
      },
    ],
  });
const { thread_id, before } = CLIENT_MESSAGES.thread_history.fields.shape;
const ThreadPath = z.object({ thread_id: thread_id.describe('Of a run, or of `GET /v1/threads`.') });
const MessagesQuery = z.object({
  before: before.describe('`before` of the previous page; omit it to start with the newest message.'),
  limit: z.coerce.number().int().min(1).max(100).default(50).describe('Messages per page.'),
});
const Messages = z
  .object({
    thread_id: z.string(),
    messages: z.array(z.looseObject({ message_id: z.string(), at: z.string() })).describe('Newest first.'),
    before: z.string().nullable().describe('Requests the next page; null on the last one.'),
  })
  .meta({
    id: 'ThreadMessages',
    examples: [
      {
        thread_id: 'thread_support-42',
        messages: [
          {
            message_id: '1796040001000-0',
            role: 'assistant',
            text: 'Your workload is stable.',
            run_id: 'run_1Zt9sWq0bY3nKcV7xJ2m',
            at: '2026-11-30T12:00:01.000Z',
          },
        ],
        before: null,
      },
    ],
  });
const Total = z.object({
  period: z.string().describe('Calendar day or month, UTC.'),
  calls: z.int(),
  units: z.number(),
});
const Usage = z
  .looseObject({ plan: z.string(), tools: z.array(z.object({ tool: z.string() })), today: Total, this_month: Total })
  .meta({
    id: 'UsageSummary',
    examples: [
      {
        plan: 'pro',
        tools: [],
        today: { period: '2026-11-30', calls: 3, units: 3 },
        this_month: { period: '2026-11', calls: 40, units: 52 },
      },
    ],
  });

export interface UserRoutesDeps extends Pick<FrontEndDeps, 'limits'> {
  readonly scope: FrontEndScope;
  readonly tools: ToolsPort;
  readonly threads: ThreadsPort;
  /** Bounds the calls of a user on this node, which belong to no connection. */
  readonly calls: InFlight;
}

/**
 * Tools, threads and usage of a user over plain HTTP: the messages of the same meaning, for clients without a socket.
 */
export function registerUserRoutes(app: FastifyInstance, deps: UserRoutesDeps): void {
  deps.scope.register(app, [], (scope) => {
    for (const path of [
      TOOLS_PATH,
      `${TOOLS_PATH}/:tool`,
      THREADS_PATH,
      `${THREADS_PATH}/:thread_id/messages`,
      USAGE_PATH,
    ])
      scope.options(path, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    registerTools(scope, deps);
    registerThreads(scope, deps);
    registerUsage(scope, deps);
  });
}

function registerTools(app: FastifyInstance, { scope, tools, calls, limits }: UserRoutesDeps): void {
  typedRoutes(app).get(
    TOOLS_PATH,
    {
      exposeHeadRoute: false,
      schema: {
        operationId: 'listTools',
        summary: 'List the tools of the user',
        description: 'The tools that the plan of the user allows.',
        tags: RUN_TAGS,
        security: USER_TOKEN,
        'x-errors': REQUEST_ERRORS,
        response: { 200: ToolList },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      await scope.countMessage(identity).allowed;
      return reply.send({ tools: [...tools.describe(identity)] });
    },
  );
  typedRoutes(app).post(
    `${TOOLS_PATH}/:tool`,
    {
      schema: {
        operationId: 'callTool',
        summary: 'Call a tool',
        description: `Executes a tool outside a run, once per \`idempotency_key\` of the user within 24 hours. A tool that
fails is answered with \`success: false\`; a refused call gets an error and is not charged. The call continues when the
client disconnects: the same key then returns its outcome.`,
        tags: RUN_TAGS,
        security: USER_TOKEN,
        params: ToolPath,
        body: ToolCall,
        'x-errors': CALL_ERRORS,
        response: { 200: ToolResult },
      },
    },
    async (request, reply) => {
      const caller = scope.caller(request);
      const { userId } = caller.identity;
      const { request_id } = request.body;
      const leave = calls.enter(userId);
      try {
        const call = callOf(caller, request.params.tool, request.body);
        checkSize(call.args, maxMessageBytes(limits, 'jsonrpc'));
        const { finished } = await tools.call(call, scope.countMessage(caller.identity));
        return reply.send({ ...(await finished), ...(request_id === undefined ? {} : { request_id }) });
      } catch (thrown) {
        const error = toTollgateError(thrown);
        throw request_id === undefined ? error : error.with({ request_id });
      } finally {
        leave();
      }
    },
  );
}

function callOf({ identity }: Caller, tool: string, body: z.infer<typeof ToolCall>): ToolCallRequest {
  return toolCallRequest(
    { identity, degraded: false, threadId: body.thread_id ?? newId('thread') },
    {
      tool,
      args: body.arguments,
      transport: 'http',
      requestId: body.request_id,
      idempotencyKey: body.idempotency_key,
    },
  );
}

/** The same bounds as for a call over MCP. @throws TollgateError MESSAGE_TOO_LARGE, JSON_ERROR */
function checkSize(args: object, maxBytes: number): void {
  const text = JSON.stringify(args);
  const size = Buffer.byteLength(text);
  if (size > maxBytes) throw new TollgateError('MESSAGE_TOO_LARGE', { fields: { max_message_size: maxBytes, size } });
  checkJsonBounds(text, MESSAGE_BOUNDS);
}

function registerThreads(app: FastifyInstance, { scope, threads }: UserRoutesDeps): void {
  typedRoutes(app).get(
    THREADS_PATH,
    {
      exposeHeadRoute: false,
      schema: {
        operationId: 'listThreads',
        summary: 'List the threads of the user',
        description: 'The latest 100 threads, the last changed first.',
        tags: RUN_TAGS,
        security: USER_TOKEN,
        'x-errors': REQUEST_ERRORS,
        response: { 200: ThreadList },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { allowed } = scope.countMessage(identity);
      const [found] = await Promise.all([threads.list(identity.userId), allowed]);
      return reply.send({ threads: [...found] as z.infer<typeof ThreadList>['threads'] });
    },
  );
  typedRoutes(app).get(
    `${THREADS_PATH}/:thread_id/messages`,
    {
      exposeHeadRoute: false,
      schema: {
        operationId: 'listMessages',
        summary: 'List the messages of a thread',
        description: 'Messages of a thread of the user, newest first. A thread that does not exist has none.',
        tags: RUN_TAGS,
        security: USER_TOKEN,
        params: ThreadPath,
        querystring: MessagesQuery,
        'x-errors': [...REQUEST_ERRORS, 'FORMAT_ERROR'],
        response: { 200: Messages },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { thread_id: threadId } = request.params;
      const { before, limit } = request.query;
      const { allowed } = scope.countMessage(identity);
      const [page] = await Promise.all([threads.history(identity.userId, { threadId, before, limit }), allowed]);
      const messages = [...page.messages] as z.infer<typeof Messages>['messages'];
      return reply.send({ thread_id: threadId, messages, before: page.before });
    },
  );
}

function registerUsage(app: FastifyInstance, { scope, tools }: UserRoutesDeps): void {
  typedRoutes(app).get(
    USAGE_PATH,
    {
      exposeHeadRoute: false,
      schema: {
        operationId: 'getUsage',
        summary: 'Read the usage of the user',
        description: 'The limits of the user, what is used of them, and the charged calls of today and this month.',
        tags: RUN_TAGS,
        security: USER_TOKEN,
        'x-errors': REQUEST_ERRORS,
        response: { 200: Usage },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { allowed } = scope.countMessage(identity);
      const [summary] = await Promise.all([tools.usage(identity), allowed]);
      return reply.send({ ...summary, tools: [...summary.tools] });
    },
  );
}
