import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { RunInputsPort } from '../../connections/handlers.ts';
import { BODY_ERRORS, typedRoutes, USER_TOKEN } from '../../http/route-docs.ts';
import { InputAnswer } from '../../protocol/input.ts';
import type { FrontEndScope } from '../front-end-scope.ts';
import { REQUEST_ERRORS, RUN_TAGS, RUNS_PATH, RunIdPath } from './run-routes.ts';

const InputPath = RunIdPath.extend({
  input_id: z.string().min(1).max(128).describe('Of the event `input_requested`, or of `input_requests` of the run.'),
});

const InputAccepted = z
  .object({
    run_id: z.string(),
    input_id: z.string(),
    action: InputAnswer.shape.action,
    repeated: z.boolean().describe('An earlier request has stored the same answer.'),
  })
  .meta({
    id: 'InputAccepted',
    examples: [{ run_id: 'run_1Zt9sWq0bY3nKcV7xJ2m', input_id: 'input_5Hb2', action: 'accept', repeated: false }],
  });

export interface InputRoutesDeps {
  readonly scope: FrontEndScope;
  readonly inputs: RunInputsPort;
}

/** The answers to the input requests of runs. Their preflight requests belong to the routes of the runs. */
export function registerInputRoutes(app: FastifyInstance, { scope, inputs }: InputRoutesDeps): void {
  scope.register(app, [], (routes) => {
    typedRoutes(routes).post(
      `${RUNS_PATH}/:run_id/inputs/:input_id`,
      {
        schema: {
          operationId: 'answerInput',
          summary: 'Answer an input request of a run',
          description: `Answers what a run asks its user: \`accept\` with the content of a choice or a form, \`decline\`,
or \`cancel\`. The first answer counts, over any transport; the same answer again has no further effect.`,
          tags: RUN_TAGS,
          security: USER_TOKEN,
          params: InputPath,
          body: InputAnswer.meta({
            id: 'InputAnswer',
            examples: [{ action: 'accept', content: { choice: 'b' } }],
          }),
          'x-errors': [
            ...REQUEST_ERRORS,
            ...BODY_ERRORS,
            'RUN_NOT_FOUND',
            'INPUT_NOT_FOUND',
            'INPUT_ALREADY_ANSWERED',
            'INPUT_EXPIRED',
          ],
          response: { 200: InputAccepted },
        },
      },
      async (request, reply) => {
        const { identity } = scope.caller(request);
        const { run_id, input_id } = request.params;
        const { action, content } = request.body;
        await scope.countMessage(identity).allowed;
        const answer = { action, ...(content && { content }) };
        const { repeated } = await inputs.answer(identity.userId, { runId: run_id, inputId: input_id, answer });
        return reply.send({ run_id, input_id, action, repeated });
      },
    );
  });
}
