import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { RunInputsPort } from '../../connections/handlers.ts';
import { BODY_ERRORS, typedRoutes, USER_ERRORS, USER_TOKEN } from '../../http/route-docs.ts';
import type { LocatedRun } from '../../jobs.ts';
import { type ErrorCode, TollgateError } from '../../protocol/errors.ts';
import type { FrontEndDeps, FrontEndScope } from '../front-end-scope.ts';
import { answerRun, answersOf } from './answers.ts';
import { ChatBody, chatRun, RESUMABLE_MS, threadOf } from './chat-request.ts';
import { chatEncoder, parseWorkflowRunId, renderError } from './chat-stream.ts';
import { MAPPING_VERSION } from './chunks.ts';
import { type FollowedRun, followedRun } from './followed-run.ts';

export const CHAT_PATH = '/v1/chat';

const ERRORS: readonly ErrorCode[] = [
  ...USER_ERRORS,
  'USER_BLOCKED',
  'CONFLICTING_CREDENTIALS',
  'AUTH_TIMEOUT',
  'ORIGIN_NOT_ALLOWED',
  'SERVER_DRAINING',
  'FORMAT_ERROR',
  'EVENTS_TRIMMED',
];
const INPUT_ERRORS = ['RUN_NOT_FOUND', 'INPUT_NOT_FOUND', 'INPUT_ALREADY_ANSWERED', 'INPUT_EXPIRED'] as const;
const TAGS = ['chat'];
const Ticket = z.object({
  ticket: z.string().max(256).optional().describe('Instead of a token, for clients that cannot send headers.'),
});
const ChatIdPath = z.object({
  chat_id: z.string().min(1).max(128).describe('The chat, or the value of `x-workflow-run-id`.'),
});
const Chunks = z.unknown().meta({
  type: 'string',
  examples: [': tollgate\n\ndata: {"type":"start","messageId":"run_1Zt9sWq0bY3nKcV7xJ2m"}\n\n'],
});
const STREAM = {
  description: 'The UI message stream of the AI SDK 7.',
  content: { 'text/event-stream': { schema: Chunks } },
};

export interface ChatRoutesDeps extends Pick<FrontEndDeps, 'runs'> {
  readonly scope: FrontEndScope;
  readonly inputs: RunInputsPort;
}

/** The routes of the AI SDK's chat transports: `DefaultChatTransport`, `useChat` and `WorkflowChatTransport`. */
export function registerChatRoutes(app: FastifyInstance, deps: ChatRoutesDeps): void {
  const headers = ['Last-Event-ID', 'User-Agent', 'X-Vercel-Ai-Ui-Message-Stream'];
  deps.scope.register(app, headers, (scope) => {
    for (const path of [CHAT_PATH, `${CHAT_PATH}/:chat_id/stream`, `${CHAT_PATH}/:chat_id/stop`]) {
      scope.options(path, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    }
    registerSend(scope, deps);
    registerResume(scope, deps);
    registerStop(scope, deps);
  });
}

function registerSend(app: FastifyInstance, { scope, inputs }: ChatRoutesDeps): void {
  typedRoutes(app).post(
    CHAT_PATH,
    {
      schema: {
        operationId: 'sendChatMessage',
        summary: 'Send a message of a chat',
        description: `Starts a run with the last message of the user, once per chat and message, and streams it. The run
continues when the client disconnects. A last message of the assistant with approvals (\`addToolApprovalResponse\`) or
results of the page's tools (\`addToolOutput\`) answers them, and the stream continues that message.`,
        tags: TAGS,
        security: USER_TOKEN,
        querystring: Ticket,
        body: ChatBody,
        'x-errors': [...ERRORS, ...BODY_ERRORS, 'RATE_LIMITED', 'QUOTA_EXCEEDED', 'AGENT_NOT_FOUND', ...INPUT_ERRORS],
        response: { 200: STREAM },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { userId } = identity;
      const answers = answersOf(request.body);
      if (answers) {
        await scope.countMessage(identity).allowed;
        const answered = await answerRun({ inputs, locate: (id, run) => scope.locate(id, run) }, userId, answers);
        return streamRun(scope, request, reply, { ...answered, afterSeq: answers.seq });
      }
      const run = chatRun(userId, request.body);
      const started = await scope.start(request, { ...run, transport: 'ai_sdk' });
      const located = await scope.find(userId, { runId: started.run_id });
      if (!located) throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id: started.run_id } });
      return streamRun(scope, request, reply, followedRun(located));
    },
  );
}

function registerResume(app: FastifyInstance, { scope }: ChatRoutesDeps): void {
  typedRoutes(app).get(
    `${CHAT_PATH}/:chat_id/stream`,
    {
      exposeHeadRoute: false,
      schema: {
        operationId: 'resumeChat',
        summary: 'Continue the stream of a chat',
        description: `The stream of the run of the chat, from its first chunk, until five minutes after its end. With \`startIndex\`, the
stream of the run in the path, or of the latest run of the chat, from that chunk on.`,
        tags: TAGS,
        security: USER_TOKEN,
        params: ChatIdPath,
        querystring: Ticket.extend({
          startIndex: z.coerce.number().int().min(-1_000_000).max(1_000_000).optional().describe('Chunks to skip.'),
        }),
        'x-errors': [...ERRORS, 'RUN_NOT_FOUND'],
        response: { 200: STREAM, 204: z.null().describe('No run of the chat continues or has just ended.') },
      },
    },
    async (request, reply) => {
      const { userId } = scope.caller(request).identity;
      const { chat_id } = request.params;
      const { startIndex } = request.query;
      const workflow = parseWorkflowRunId(chat_id);
      const name = workflow ? { runId: workflow.runId } : { threadId: threadOf(userId, chat_id) };
      const run = await scope.find(userId, name);
      if (!run && workflow) throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id: workflow.runId } });
      // A client with an index takes 204 for an error.
      const isAwaited = run && (startIndex !== undefined || (run.endedMsAgo ?? 0) < RESUMABLE_MS);
      if (!run || !isAwaited) return reply.status(204).send(null);
      const followed = followedRun(run);
      if (!workflow) return streamRun(scope, request, reply, followed, startIndex);
      const isSameLog = workflow.epoch === run.epoch && workflow.version === MAPPING_VERSION;
      const { afterSeq } = workflow;
      const isSamePart = followed === run || followed.afterSeq === afterSeq;
      if (!isSameLog || !isSamePart) return refuseIndex(reply, run);
      return streamRun(scope, request, reply, { ...followed, ...(afterSeq !== undefined && { afterSeq }) }, startIndex);
    },
  );
}

function registerStop(app: FastifyInstance, { scope, runs }: ChatRoutesDeps): void {
  typedRoutes(app).post(
    `${CHAT_PATH}/:chat_id/stop`,
    {
      schema: {
        operationId: 'stopChat',
        summary: 'Cancel the run of a chat',
        description: 'Requests the end of the run that the chat waits for. Closing the stream cancels nothing.',
        tags: TAGS,
        security: USER_TOKEN,
        params: ChatIdPath,
        'x-errors': [...ERRORS, 'RATE_LIMITED', 'RUN_NOT_FOUND'],
        response: { 202: Stopped, 204: z.null().describe('The chat waits for no run.') },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { chat_id } = request.params;
      const workflow = parseWorkflowRunId(chat_id);
      const name = workflow ? { runId: workflow.runId } : { threadId: threadOf(identity.userId, chat_id) };
      const run = await scope.find(identity.userId, name);
      if (!run && workflow) throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id: workflow.runId } });
      if (!run || run.endedAtSeq !== undefined) return reply.status(204).send(null);
      await runs.cancel(identity.userId, run.runId, scope.countMessage(identity));
      return reply.status(202).send({ run_id: run.runId });
    },
  );
}

const Stopped = z
  .object({ run_id: z.string() })
  .meta({ id: 'ChatStopped', examples: [{ run_id: 'run_1Zt9sWq0bY3nKcV7xJ2m' }] });

/** The stream of a run has its name, so a client that comes back replaces the stream that it has lost. */
function streamRun(
  scope: FrontEndScope,
  request: FastifyRequest,
  reply: FastifyReply,
  run: FollowedRun,
  startIndex = 0,
): Promise<FastifyReply> {
  // A negative index asks for the last chunks. They are not counted before they are sent: the stream has all of them,
  // and the header makes the client count from 0 (WorkflowChatTransport adds the index to it).
  if (startIndex < 0) reply.header('x-workflow-stream-tail-index', String(-startIndex - 1));
  const { runId, epoch, after } = run;
  const encoder = chatEncoder(run, Math.max(0, startIndex));
  return scope.stream(request, reply, { encoder, resumeFrom: { after, epoch }, stream: `ai_sdk:${runId}` });
}

/** The chunks that the client counted are not those of this stream. It has to start again, with the chat. */
function refuseIndex(reply: FastifyReply, { runId }: LocatedRun): FastifyReply {
  const error = new TollgateError('EVENTS_TRIMMED', { retryable: true, fields: { run_id: runId } });
  return reply.header('content-type', 'text/event-stream').send(renderError(error));
}
