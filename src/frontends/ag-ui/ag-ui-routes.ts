import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { BODY_ERRORS, typedRoutes, USER_ERRORS, USER_TOKEN } from '../../http/route-docs.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import type { FrontEndScope } from '../front-end-scope.ts';
import type { Conversations } from './conversations.ts';
import { RunAgentInput } from './input.ts';

const AG_UI_PATH = '/v1/agui';

export const AgentPath = z.object({
  agent: z.string().min(1).max(64).describe('Name of an agent; `default` for the default agent.'),
});

const Events = z.unknown().meta({
  type: 'string',
  examples: [': tollgate\n\ndata: {"type":"RUN_STARTED","threadId":"thread-1","runId":"run-1"}\n\n'],
});
const Messages = z.unknown().meta({
  type: 'string',
  format: 'binary',
  examples: ['protobuf messages, each after its length (4 bytes, big-endian)'],
});
/** A stream of AG-UI events. */
export const AG_UI_STREAM = {
  description: 'AG-UI events, until the end of the run.',
  content: {
    'text/event-stream': { schema: Events },
    'application/vnd.ag-ui.event+proto': { schema: Messages },
  },
};

export const AG_UI_ERRORS: readonly ErrorCode[] = [
  ...USER_ERRORS,
  ...BODY_ERRORS,
  'USER_BLOCKED',
  'CONFLICTING_CREDENTIALS',
  'AUTH_TIMEOUT',
  'ORIGIN_NOT_ALLOWED',
  'SERVER_DRAINING',
  'RATE_LIMITED',
  'AGENT_NOT_FOUND',
];
export const AG_UI_STREAM_ERRORS: readonly ErrorCode[] = [...AG_UI_ERRORS, 'EVENTS_TRIMMED'];
export const AG_UI_RUN_ERRORS: readonly ErrorCode[] = [
  ...AG_UI_STREAM_ERRORS,
  'QUOTA_EXCEEDED',
  'RUN_NOT_FOUND',
  'INPUT_EXPIRED',
  'INPUT_ALREADY_ANSWERED',
];

export interface AgUiRoutesDeps {
  readonly scope: FrontEndScope;
  readonly conversations: Conversations;
}

/** AG-UI 1.0: a run of an agent, and the way back to it. */
export function registerAgUiRoutes(app: FastifyInstance, { scope, conversations }: AgUiRoutesDeps): void {
  scope.register(app, [], (routes) => {
    routes.options(`${AG_UI_PATH}/*`, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    typedRoutes(routes).post(
      `${AG_UI_PATH}/:agent`,
      {
        schema: {
          operationId: 'runAgUiAgent',
          summary: 'Run an agent over AG-UI',
          description: `Endpoint of AG-UI 1.0 for \`HttpAgent\`. Starts a run once per \`threadId\` and \`runId\` of the
user; a repetition continues it with a snapshot of what has happened. With \`resume\`, it answers the interrupts of the
latest run of the thread, and continues that run. The run continues when the client disconnects.`,
          tags: ['ag-ui'],
          security: USER_TOKEN,
          params: AgentPath,
          body: RunAgentInput,
          'x-errors': AG_UI_RUN_ERRORS,
          response: { 200: AG_UI_STREAM },
        },
      },
      (request, reply) => conversations.run(request, reply, request.params.agent, request.body),
    );
    typedRoutes(routes).post(
      `${AG_UI_PATH}/:agent/connect`,
      {
        schema: {
          operationId: 'connectAgUiThread',
          summary: 'Restore a thread over AG-UI',
          description: `For \`connectAgent()\`: the conversation of the thread and its latest run, with the events that
follow. Starts no run. The body is empty if there is nothing to restore.`,
          tags: ['ag-ui'],
          security: USER_TOKEN,
          params: AgentPath,
          body: RunAgentInput,
          'x-errors': AG_UI_STREAM_ERRORS,
          response: { 200: AG_UI_STREAM },
        },
      },
      (request, reply) => conversations.connect(request, reply, request.params.agent, request.body),
    );
  });
}
