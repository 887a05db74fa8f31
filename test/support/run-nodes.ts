import { AgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import type { Plans } from '../../src/catalogue/plans.ts';
import type { StartedRun } from '../../src/jobs.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { RunInputs } from '../../src/runs/run-inputs.ts';
import { RunLog } from '../../src/runs/run-log.ts';
import type { RunQueue } from '../../src/runs/run-queue.ts';
import { Runs } from '../../src/runs/runs.ts';
import { type Core, NO_QUEUE, silentLogger } from './core.ts';
import { closeAfter } from './open-resources.ts';
import { testRedisUrl } from './stack.ts';

export const RUN_AGENTS = new AgentCatalogue([{ name: 'tester', description: 'a', tools: ['t'] }], 'tester');

export interface RunRequestFields {
  readonly userId: string;
  readonly plan: string;
  readonly requestId?: string;
  readonly runId?: string;
  /** Undefined for a request without a thread, on a connection of its own. */
  readonly threadId?: string;
  readonly message?: string;
}

/** The run-related components of gateways, each with its own connection to Redis. */
export async function runNodes(core: Core, plans: Plans, options: { nodes?: number; timeoutMs?: number } = {}) {
  const { nodes = 3, timeoutMs = 45_000 } = options;
  return Promise.all(
    Array.from({ length: nodes }, async () => {
      const redis = await connectRedis(testRedisUrl(), 'commands', silentLogger);
      closeAfter('file', () => disconnectRedis(redis));
      return new Runs(
        { ...core, queue: NO_QUEUE, redis, plans, agents: RUN_AGENTS, clock: systemClock },
        { timeoutMs },
      );
    }),
  );
}

/** Answers input requests, without a queue for the runs that continue. */
export function runInputs(core: Core, queue: RunQueue = NO_QUEUE): RunInputs {
  return new RunInputs({ ...core, queue, clock: systemClock });
}

/** Starts a run, without message limit and queue. */
export function startRun(runs: Runs, fields: RunRequestFields): Promise<StartedRun> {
  const { userId, plan, threadId, message = 'hello' } = fields;
  const identity = { userId, plan, permissions: [], roles: [], featureFlags: {} } as unknown as Identity;
  const request = {
    identity,
    connectionId: 'ws_1',
    requestId: fields.requestId ?? newId('req'),
    runId: fields.runId ?? newId('run'),
    threadId: threadId ?? newId('thread'),
    isThreadImplied: threadId === undefined,
    agent: undefined,
    message,
    transport: 'websocket',
    degraded: false,
  };
  return runs.start(request, { allowed: Promise.resolve(), messages: 30 });
}

/** Returns the run, or the error of its refusal. */
export async function tryRun(runs: Runs, fields: RunRequestFields): Promise<StartedRun | TollgateError> {
  try {
    return await startRun(runs, fields);
  } catch (error) {
    if (error instanceof TollgateError) return error;
    throw error;
  }
}

export function isRefused(answer: StartedRun | TollgateError): answer is TollgateError {
  return answer instanceof TollgateError;
}

/** What a worker does with the runs of `runNodes`. */
export function runClaims(core: Core): RunClaims {
  return new RunClaims({ ...core, agents: RUN_AGENTS }, { timeoutMs: 45_000 });
}

/** Claims a run like a worker, and returns the writer of its events. */
export async function claimRun(core: Core, userId: string, runId: string): Promise<RunLog> {
  const claims = runClaims(core);
  const claim = await claims.claim(userId, runId);
  if (claim.outcome !== 'claimed') throw new Error(`the run is ${claim.outcome}`);
  return new RunLog({ log: core.log, clock: systemClock, claims }, claim.run, () => undefined);
}

/** Executes a run to its end, with this text as its response. */
export async function completeRun(core: Core, userId: string, runId: string, text = 'done') {
  const log = await claimRun(core, userId, runId);
  await log.started();
  await log.completed({ final_response: text, summary: 'done' });
}
