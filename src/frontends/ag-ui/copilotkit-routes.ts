import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { typedRoutes, USER_TOKEN } from '../../http/route-docs.ts';
import {
  AG_UI_ERRORS,
  AG_UI_RUN_ERRORS,
  AG_UI_STREAM,
  AG_UI_STREAM_ERRORS,
  AgentPath,
  type AgUiRoutesDeps,
} from './ag-ui-routes.ts';
import type { Conversations } from './conversations.ts';
import { RunAgentInput } from './input.ts';

/** The `runtimeUrl` of CopilotKit's client. */
const COPILOTKIT_PATH = '/v1/copilotkit';
/** Version of the CopilotKit runtime whose routes these are. */
const RUNTIME_VERSION = '1.75.0';

const ThreadId = z.string().min(1).max(255).describe('Thread as the client names it.');
const StopBody = z
  .object({ runId: z.string().min(1).max(255).optional().describe('Stops only this run.') })
  .meta({ id: 'CopilotKitStop', examples: [{ runId: 'run-1' }] });
const OptionalStopBody = StopBody.optional().meta({ examples: [{ runId: 'run-1' }] });
const Stopped = z
  .object({ stopped: z.boolean().describe('Whether a run was found that had not ended.') })
  .meta({ id: 'AgUiStopped', examples: [{ stopped: true }] });
const Info = z
  .object({
    version: z.string(),
    mode: z.literal('sse'),
    agents: z.record(z.string(), z.object({ name: z.string(), className: z.string(), description: z.string() })),
    audioFileTranscriptionEnabled: z.literal(false),
    telemetryDisabled: z.literal(true),
  })
  .meta({
    id: 'CopilotKitInfo',
    examples: [
      {
        version: RUNTIME_VERSION,
        mode: 'sse',
        agents: { default: { name: 'default', className: 'TollgateAgent', description: 'Answers questions.' } },
        audioFileTranscriptionEnabled: false,
        telemetryDisabled: true,
      },
    ],
  });
type Info = z.infer<typeof Info>;

/** The one-endpoint form of the client: the method is in the body. */
const Envelope = z
  .discriminatedUnion('method', [
    z.object({ method: z.literal('info') }),
    z.object({
      method: z.enum(['agent/run', 'agent/connect']),
      params: z.object({ agentId: AgentPath.shape.agent }),
      body: RunAgentInput,
    }),
    z.object({
      method: z.literal('agent/stop'),
      params: z.object({ agentId: AgentPath.shape.agent, threadId: ThreadId }),
      body: StopBody.optional(),
    }),
  ])
  .meta({ id: 'CopilotKitRequest', examples: [{ method: 'info' }] });

const DOCUMENTED = { tags: ['ag-ui'], security: USER_TOKEN } as const;

/** The routes that CopilotKit's client calls on its runtime. */
export function registerCopilotKitRoutes(app: FastifyInstance, deps: AgUiRoutesDeps): void {
  deps.scope.register(app, [], (routes) => {
    for (const path of [COPILOTKIT_PATH, `${COPILOTKIT_PATH}/*`]) {
      routes.options(path, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    }
    registerInfo(routes, deps);
    registerStreams(routes, deps);
    registerStop(routes, deps);
    registerEnvelope(routes, deps);
  });
}

function registerInfo(app: FastifyInstance, { conversations }: AgUiRoutesDeps): void {
  typedRoutes(app).get(
    `${COPILOTKIT_PATH}/info`,
    {
      exposeHeadRoute: false,
      schema: {
        ...DOCUMENTED,
        operationId: 'getCopilotKitInfo',
        summary: 'List the agents for CopilotKit',
        description: 'The first request of the client. `default` names the default agent.',
        'x-errors': AG_UI_ERRORS.filter((code) => code !== 'AGENT_NOT_FOUND' && code !== 'RATE_LIMITED'),
        response: { 200: Info },
      },
    },
    async () => infoOf(conversations),
  );
}

function registerStreams(app: FastifyInstance, { conversations }: AgUiRoutesDeps): void {
  const stream = { ...DOCUMENTED, params: AgentPath, body: RunAgentInput, response: { 200: AG_UI_STREAM } };
  typedRoutes(app).post(
    `${COPILOTKIT_PATH}/agent/:agent/run`,
    {
      schema: {
        ...stream,
        operationId: 'runCopilotKitAgent',
        summary: 'Run an agent for CopilotKit',
        description: 'As `POST /v1/agui/{agent}`.',
        'x-errors': AG_UI_RUN_ERRORS,
      },
    },
    (request, reply) => conversations.run(request, reply, request.params.agent, request.body),
  );
  typedRoutes(app).post(
    `${COPILOTKIT_PATH}/agent/:agent/connect`,
    {
      schema: {
        ...stream,
        operationId: 'connectCopilotKitThread',
        summary: 'Restore a thread for CopilotKit',
        description: 'As `POST /v1/agui/{agent}/connect`.',
        'x-errors': AG_UI_STREAM_ERRORS,
      },
    },
    (request, reply) => conversations.connect(request, reply, request.params.agent, request.body),
  );
}

function registerStop(app: FastifyInstance, { conversations }: AgUiRoutesDeps): void {
  typedRoutes(app).post(
    `${COPILOTKIT_PATH}/agent/:agent/stop/:thread_id`,
    {
      schema: {
        ...DOCUMENTED,
        operationId: 'stopCopilotKitAgent',
        summary: 'Stop a run for CopilotKit',
        description: `Requests the cancellation of the named run, or of the latest run of the thread. The client waits
for the end of its stream.`,
        params: AgentPath.extend({ thread_id: ThreadId }),
        body: OptionalStopBody,
        'x-errors': AG_UI_ERRORS,
        response: { 200: Stopped },
      },
    },
    async (request, reply) => {
      const { agent, thread_id: threadId } = request.params;
      const run = { threadId, runId: request.body?.runId };
      return reply.send({ stopped: await conversations.stop(request, agent, run) });
    },
  );
}

function registerEnvelope(app: FastifyInstance, { conversations }: AgUiRoutesDeps): void {
  typedRoutes(app).post(
    COPILOTKIT_PATH,
    {
      schema: {
        ...DOCUMENTED,
        operationId: 'callCopilotKitRuntime',
        summary: 'Call a CopilotKit route by method',
        description: `The one-endpoint form of the client: the other routes as \`{ method, params, body }\`, with the
methods \`info\`, \`agent/run\`, \`agent/connect\` and \`agent/stop\`.`,
        body: Envelope,
        'x-errors': AG_UI_RUN_ERRORS,
        response: {
          200: {
            description: 'The response of the named method.',
            content: {
              ...AG_UI_STREAM.content,
              'application/json': { schema: z.union([Info, Stopped]).meta({ examples: [{ stopped: true }] }) },
            },
          },
        },
      },
    },
    (request, reply) => dispatch(conversations, request, reply, request.body),
  );
}

async function dispatch(
  conversations: Conversations,
  request: FastifyRequest,
  reply: FastifyReply,
  call: z.infer<typeof Envelope>,
): Promise<FastifyReply> {
  switch (call.method) {
    case 'info':
      return reply.send(infoOf(conversations));
    case 'agent/run':
      return conversations.run(request, reply, call.params.agentId, call.body);
    case 'agent/connect':
      return conversations.connect(request, reply, call.params.agentId, call.body);
    case 'agent/stop': {
      const { agentId, threadId } = call.params;
      const run = { threadId, runId: call.body?.runId };
      return reply.send({ stopped: await conversations.stop(request, agentId, run) });
    }
  }
}

function infoOf({ agents }: Conversations): Info {
  return {
    version: RUNTIME_VERSION,
    mode: 'sse',
    agents: Object.fromEntries(
      Object.entries(agents).map(([name, description]) => [name, { name, className: 'TollgateAgent', description }]),
    ),
    audioFileTranscriptionEnabled: false,
    telemetryDisabled: true,
  };
}
