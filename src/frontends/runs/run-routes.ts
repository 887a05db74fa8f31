import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { BODY_ERRORS, typedRoutes, USER_ERRORS, USER_TOKEN } from '../../http/route-docs.ts';
import { RUN_STATES, type RunStatus } from '../../jobs.ts';
import type { Clock } from '../../lib/clock.ts';
import { derivedId, newId } from '../../lib/ids.ts';
import { type ErrorCode, TollgateError } from '../../protocol/errors.ts';
import { fieldsSchema } from '../../protocol/messages.ts';
import { resumePoint } from '../../transports/handshake-request.ts';
import type { FrontEndDeps, FrontEndScope } from '../front-end-scope.ts';
import { plainEncoder } from './plain-stream.ts';
import type { RunWaits } from './run-waits.ts';

export const RUNS_PATH = '/v1/runs';
export const EVENTS_PATH = '/v1/events';

/** Longest wait, below the idle timeout of common proxies (60 s). */
const MAX_WAIT_SECONDS = 50;

export const RunIdPath = z.object({ run_id: z.string().min(1).max(64).describe('Of the answer to `POST /v1/runs`.') });
const Run = z
  .object({
    run_id: z.string(),
    thread_id: z.string().nullable(),
    request_id: z.string().nullable(),
    status: z.enum(RUN_STATES),
    ended_at: z.iso.datetime().optional(),
    final_response: z
      .string()
      .nullish()
      .describe('Answer of a completed run; null when its thread no longer contains it.'),
    input_requests: z
      .array(z.looseObject({ input_id: z.string(), kind: z.string(), message: z.string(), expires_at: z.string() }))
      .optional()
      .describe('What a run with the status `waiting` asks its user.'),
  })
  .meta({
    id: 'Run',
    examples: [
      {
        run_id: 'run_1Zt9sWq0bY3nKcV7xJ2m',
        thread_id: 'thread_support-42',
        request_id: 'req_7',
        status: 'completed',
        ended_at: '2026-11-30T12:00:01.000Z',
        final_response: 'Your workload is stable.',
      },
    ],
  });
const Position = z.object({
  after: z.string().max(16).optional().describe('`seq` of the last event that the client received.'),
  epoch: z.string().max(64).optional().describe('`epoch` of that event.'),
  ticket: z.string().max(256).optional().describe('Instead of a token, for clients that cannot send headers.'),
  stream: z
    .string()
    .regex(/^[\w-]{1,64}$/)
    .optional()
    .describe('Name of the stream. It replaces an earlier stream of the user with this name, on any node.'),
});
const Events = z.unknown().meta({
  type: 'string',
  examples: [
    ': tollgate\n\nid: epoch_65f:7\ndata: {"type":"agent_started","seq":7,"run_id":"run_1Zt9sWq0bY3nKcV7xJ2m"}\n\n',
  ],
});
const STREAM = {
  description:
    'Server-sent events. The `data` of each is a frame of `/ws`; durable events have an `id`, `<epoch>:<seq>`.',
  content: { 'text/event-stream': { schema: Events } },
};
const STREAM_ERRORS: readonly ErrorCode[] = [
  ...USER_ERRORS,
  'USER_BLOCKED',
  'CONFLICTING_CREDENTIALS',
  'AUTH_TIMEOUT',
  'ORIGIN_NOT_ALLOWED',
  'SERVER_DRAINING',
];
export const REQUEST_ERRORS: readonly ErrorCode[] = [...STREAM_ERRORS, 'RATE_LIMITED'];
export const RUN_TAGS = ['runs'];

export interface RunRoutesDeps extends Pick<FrontEndDeps, 'runs'> {
  readonly scope: FrontEndScope;
  readonly waits: RunWaits;
  readonly clock: Clock;
}

/** Runs and events over plain HTTP, for `curl`, EventSource and everything that has no WebSocket. */
export function registerRunRoutes(app: FastifyInstance, deps: RunRoutesDeps): void {
  deps.scope.register(app, ['Last-Event-ID'], (scope) => {
    for (const path of [RUNS_PATH, `${RUNS_PATH}/:run_id`, `${RUNS_PATH}/:run_id/*`, EVENTS_PATH]) {
      scope.options(path, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    }
    registerStart(scope, deps);
    registerStatus(scope, deps);
    registerCancel(scope, deps);
    registerRunEvents(scope, deps);
    registerUserEvents(scope, deps);
  });
}

function registerStart(app: FastifyInstance, { scope, runs, waits }: RunRoutesDeps): void {
  typedRoutes(app).post(
    RUNS_PATH,
    {
      schema: {
        operationId: 'startRun',
        summary: 'Start a run',
        description: `Starts a run, once per \`request_id\` of the user within 24 hours. The run continues when the
client disconnects. With \`wait\`, the answer is sent when the run has ended or waits for input of its user, or after that
time with the run as it is.`,
        tags: RUN_TAGS,
        security: USER_TOKEN,
        querystring: z.object({
          wait: z.coerce.number().min(0).max(MAX_WAIT_SECONDS).optional().describe('Seconds to wait for the end.'),
          ticket: Position.shape.ticket,
        }),
        body: fieldsSchema('agent_request').meta({
          id: 'RunRequest',
          examples: [{ message: 'How is my workload doing?', request_id: 'req_7' }],
        }),
        'x-errors': [...REQUEST_ERRORS, ...BODY_ERRORS, 'AGENT_NOT_FOUND', 'QUOTA_EXCEEDED'],
        response: {
          200: Run.describe('The run has ended.'),
          202: Run.describe('The run has been accepted and continues.'),
        },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { userId } = identity;
      const { message, agent, thread_id, request_id: requestId = newId('req') } = request.body;
      const runId = derivedId('run', userId, requestId);
      const implied = thread_id === undefined ? { isThreadImplied: true } : {};
      const threadId = thread_id ?? derivedId('thread', userId, requestId);
      const accepted = { requestId, runId, threadId, agent, message, transport: 'http', ...implied };
      const { run_id } = await scope.start(request, accepted);
      const state = () => runs.status(userId, run_id);
      const { wait = 0 } = request.query;
      if (wait > 0) {
        const isDone = async () => !isInProgress(await state());
        const signal = disconnected(reply);
        await waits.untilDone(userId, run_id, { forMs: wait * 1_000, signal, isDone });
      }
      const status = await state();
      reply.header('location', `${RUNS_PATH}/${run_id}`);
      return reply.status(hasEndedIn(status) ? 200 : 202).send(runOf(run_id, status));
    },
  );
}

function registerStatus(app: FastifyInstance, { scope, runs }: RunRoutesDeps): void {
  typedRoutes(app).get(
    `${RUNS_PATH}/:run_id`,
    {
      exposeHeadRoute: false,
      schema: {
        operationId: 'getRun',
        summary: 'Read a run',
        description: 'The state of a run of the user, within 24 hours after its start.',
        tags: RUN_TAGS,
        security: USER_TOKEN,
        params: RunIdPath,
        'x-errors': [...REQUEST_ERRORS, 'FORMAT_ERROR', 'RUN_NOT_FOUND'],
        response: { 200: Run },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { run_id } = request.params;
      const { allowed } = scope.countMessage(identity);
      const [status] = await Promise.all([runs.status(identity.userId, run_id), allowed]);
      return reply.send(runOf(run_id, status));
    },
  );
}

function registerCancel(app: FastifyInstance, { scope, runs }: RunRoutesDeps): void {
  typedRoutes(app).post(
    `${RUNS_PATH}/:run_id/cancel`,
    {
      schema: {
        operationId: 'cancelRun',
        summary: 'Cancel a run',
        description: 'Requests the end of a run. Its terminal event follows.',
        tags: RUN_TAGS,
        security: USER_TOKEN,
        params: RunIdPath,
        'x-errors': [...REQUEST_ERRORS, 'FORMAT_ERROR', 'RUN_NOT_FOUND'],
        response: { 202: CancelAccepted },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { run_id } = request.params;
      const answer = await runs.cancel(identity.userId, run_id, scope.countMessage(identity));
      if (answer === 'missing') throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id } });
      return reply.status(202).send({ run_id, already_ended: answer === 'finished' });
    },
  );
}

const CancelAccepted = z
  .object({ run_id: z.string(), already_ended: z.boolean().describe('The run had ended before.') })
  .meta({ id: 'CancelAccepted', examples: [{ run_id: 'run_1Zt9sWq0bY3nKcV7xJ2m', already_ended: false }] });

function registerRunEvents(app: FastifyInstance, { scope, clock }: RunRoutesDeps): void {
  typedRoutes(app).get(
    `${RUNS_PATH}/:run_id/events`,
    {
      exposeHeadRoute: false,
      schema: {
        operationId: 'streamRunEvents',
        summary: 'Stream the events of a run',
        description: `The events of a run from its first one, or after \`Last-Event-ID\` (or \`after\` and \`epoch\`), until
its terminal event. The stream counts as a connection of the user.`,
        tags: RUN_TAGS,
        security: USER_TOKEN,
        params: RunIdPath,
        querystring: Position,
        'x-errors': [...STREAM_ERRORS, 'FORMAT_ERROR', 'RUN_NOT_FOUND', 'EVENTS_TRIMMED'],
        response: {
          200: STREAM,
          204: z.null().describe('The run has ended, and no event follows the position. EventSource then stops.'),
        },
      },
    },
    async (request, reply) => {
      const { identity } = scope.caller(request);
      const { run_id: runId } = request.params;
      const seen = positionOf(request, request.query);
      const run = await scope.locate(identity.userId, { runId });
      if (!run) throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id: runId } });
      const { epoch } = run;
      const after = seen?.epoch === epoch ? Math.max(seen.after, run.after) : run.after;
      if (run.endedAtSeq !== undefined && after >= run.endedAtSeq) return reply.status(204).send(null);
      const encoder = plainEncoder(() => clock.now(), runId);
      return scope.stream(request, reply, { encoder, resumeFrom: { after, epoch }, stream: request.query.stream });
    },
  );
}

function registerUserEvents(app: FastifyInstance, { scope, clock }: RunRoutesDeps): void {
  typedRoutes(app).get(
    EVENTS_PATH,
    {
      exposeHeadRoute: false,
      schema: {
        operationId: 'streamEvents',
        summary: 'Stream all events of the user',
        description: `All events of the user, of every run: from now on, or after \`Last-Event-ID\` (or \`after\` and
\`epoch\`). The stream counts as a connection of the user.`,
        tags: RUN_TAGS,
        security: USER_TOKEN,
        querystring: Position,
        'x-errors': [...STREAM_ERRORS, 'FORMAT_ERROR'],
        response: { 200: STREAM },
      },
    },
    async (request, reply) => {
      const encoder = plainEncoder(() => clock.now());
      const resumeFrom = positionOf(request, request.query);
      return scope.stream(request, reply, { encoder, resumeFrom, stream: request.query.stream });
    },
  );
}

/**
 * The position after which a client wants to continue. The header precedes the query: a client that reconnects by
 * itself repeats its first URL, with a newer header.
 * @throws TollgateError FORMAT_ERROR
 */
function positionOf({ headers }: FastifyRequest, { after, epoch }: z.infer<typeof Position>) {
  const header = headers['last-event-id'];
  if (typeof header !== 'string' || header === '') return resumePoint(after, epoch);
  const at = header.lastIndexOf(':');
  if (at <= 0)
    throw new TollgateError('FORMAT_ERROR', { text: 'Last-Event-ID must be the id of an event: <epoch>:<seq>.' });
  return resumePoint(header.slice(at + 1), header.slice(0, at));
}

function runOf(run_id: string, { status, threadId, requestId, ...rest }: RunStatus): z.infer<typeof Run> {
  if (status === 'unknown') throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id } });
  const { input_requests, ...end } = rest;
  const inputs = input_requests ? { input_requests: [...input_requests] } : {};
  return { run_id, thread_id: threadId, request_id: requestId, status, ...end, ...inputs };
}

/** Whether the run needs nothing of its user now. */
function isInProgress({ status }: Pick<RunStatus, 'status'>): boolean {
  return status === 'queued' || status === 'running';
}

function hasEndedIn({ status }: RunStatus): boolean {
  return !isInProgress({ status }) && status !== 'waiting';
}

/** Aborts when the client of a request disconnects. */
function disconnected({ raw }: FastifyReply): AbortSignal {
  const closed = new AbortController();
  raw.once('close', () => closed.abort('closed'));
  if (raw.destroyed) closed.abort('closed');
  return closed.signal;
}
