import { activeRunMember, type UserLogWriter } from '../events/user-log-writer.ts';
import type { AgentRunJob } from '../jobs.ts';
import type { Clock } from '../lib/clock.ts';
import { newId } from '../lib/ids.ts';
import type { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { InputAnswer, InputOutcome, InputRequest } from '../protocol/input.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { literal, oneOf, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import { checkedAnswer } from './input-answer.ts';
import type { RunQueue } from './run-queue.ts';
import { type RunState, readRunState } from './run-state.ts';

const answerInput = LuaScript.load(
  'answerInput-5',
  oneOf(
    tuple([literal('answered', 'repeated'), literal('queued', 'running')]),
    tuple([literal('conflict', 'expired', 'pending', 'missing', 'finished')]),
  ),
);

/** An answer of a user to an input request of one of the user's runs. */
export interface InputResponse {
  readonly runId: string;
  readonly inputId: string;
  readonly answer: InputAnswer;
  /** Answers only a request of this kind; any by default. */
  readonly kind?: InputRequest['kind'];
}

export interface RunInputsDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly log: Pick<UserLogWriter, 'appendWith'>;
  readonly queue: RunQueue;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'inputRequests'>;
}

/** Answers the input requests of runs. The first answer counts, on any node; a run that waits for it continues. */
export class RunInputs {
  readonly #deps: RunInputsDeps;

  constructor(deps: RunInputsDeps) {
    this.#deps = deps;
  }

  /**
   * Stores an answer. The same answer again has no further effect.
   * @throws TollgateError RUN_NOT_FOUND, INPUT_NOT_FOUND, INPUT_ALREADY_ANSWERED, INPUT_EXPIRED, FORMAT_ERROR, OVERLOADED
   */
  async answer(
    userId: string,
    { runId, inputId, answer, kind }: InputResponse,
  ): Promise<{ readonly repeated: boolean }> {
    const fields = { run_id: runId, input_id: inputId };
    const state = await readRunState(this.#deps, userId, runId);
    if (!state) throw new TollgateError('RUN_NOT_FOUND', { fields });
    const request = state.inputs.find(({ id }) => id === inputId)?.request;
    if (!request || (kind !== undefined && request.kind !== kind))
      throw new TollgateError('INPUT_NOT_FOUND', { fields });
    const job = { user_id: userId, run_id: runId };
    const outcome = await this.#store(job, state, { id: inputId, request, outcome: checkedAnswer(request, answer) });
    switch (outcome) {
      case 'answered':
      case 'repeated':
        return { repeated: outcome === 'repeated' };
      case 'conflict':
        throw new TollgateError('INPUT_ALREADY_ANSWERED', { fields });
      case 'expired':
        throw new TollgateError('INPUT_EXPIRED', { fields });
      default:
        throw new TollgateError('INPUT_NOT_FOUND', { fields });
    }
  }

  /**
   * Ends the input requests of an overdue run that have expired. The run then continues without an answer.
   * @returns whether the run waits for input, or did until this call; the sweep does not end such a run
   */
  async expire(job: AgentRunJob): Promise<boolean> {
    const state = await readRunState(this.#deps, job.user_id, job.run_id);
    if (state?.status !== 'waiting') return false;
    let isWaiting = false;
    for (const { id, request, isOpen } of state.inputs) {
      if (!isOpen) continue;
      const outcome = await this.#store(job, state, { id, request, outcome: { action: 'expired' } });
      isWaiting ||= outcome !== 'missing' && outcome !== 'finished';
    }
    return isWaiting;
  }

  async #store(
    job: AgentRunJob,
    { requestId, threadId, agent }: RunState,
    { id, request, outcome }: { readonly id: string; readonly request: InputRequest; readonly outcome: InputOutcome },
  ) {
    const { keys: allKeys, log, queue, clock, metrics } = this.#deps;
    const { user_id, run_id } = job;
    const keys = allKeys.user(user_id);
    const isExpired = outcome.action === 'expired';
    const event = isExpired ? 'input_expired' : 'input_received';
    const timestamp = new Date(clock.now()).toISOString();
    const fields: Fields = {
      ...{ event_id: newId('evt'), run_id, thread_id: threadId, request_id: requestId, user_id, agent_name: agent },
      ...{ input_id: id, kind: request.kind, ...callOf(request), ...(isExpired ? {} : { action: outcome.action }) },
      timestamp,
    };
    const reply = await log.appendWith(user_id, {
      script: answerInput,
      keys: [keys.log, keys.logState, keys.run(run_id), keys.activeRuns, keys.runsInFlight],
      args: [
        ...[activeRunMember(user_id, run_id), id, JSON.stringify(outcome), isExpired ? 1 : 0],
        ...[event, timestamp, JSON.stringify(fields)],
      ],
      event,
      outcomeOf: ([stored]) => {
        if (stored === 'answered') return 'appended';
        return stored === 'repeated' ? 'repeated' : 'none';
      },
    });
    if (reply[0] === 'answered') metrics.inputRequests.inc({ kind: request.kind, outcome: outcome.action });
    // The job follows the answer. If it cannot be stored, the repetition of the answer adds it, or the sweep ends the run.
    if (reply[1] === 'queued') {
      await queue.add(job).catch((cause) => {
        throw new TollgateError('OVERLOADED', { cause });
      });
    }
    return reply[0];
  }
}

function callOf({ tool_name, tool_call_id }: InputRequest) {
  return tool_call_id === undefined ? {} : { tool_name, tool_call_id };
}
