import { expect } from '@jest/globals';
import { loadAgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import type { InputRequest } from '../../src/protocol/input.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { callClientTool } from '../../src/runs/client-calls.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { RunSuspended } from '../../src/runs/run-end.ts';
import { RunInputs } from '../../src/runs/run-inputs.ts';
import { RunLog } from '../../src/runs/run-log.ts';
import { Runs } from '../../src/runs/runs.ts';
import { LOG_BYTES, NO_QUEUE, silentLogger } from './core.ts';
import { closeAfter } from './open-resources.ts';
import type { StackAddresses } from './stack.ts';

/** One event of a scripted run, appended by the log of its run. */
export type ScriptedEvent = (log: RunLog) => Promise<unknown>;

/** The worker of a stack that has none: it appends the events of runs as the test tells it. */
export class ScriptedWorker {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly log: UserLogWriter;
  readonly runs: Runs;
  readonly claims: RunClaims;
  readonly inputs: RunInputs;

  private constructor(redis: Redis, of: StackAddresses, logLength: number, logBytes: number) {
    this.redis = redis;
    this.keys = new Keys(of.keyPrefix);
    const deps = { redis, keys: this.keys, metrics: new Metrics(), tracing: NO_TRACING };
    this.log = new UserLogWriter(deps, { length: logLength, maxAgeMs: 3_600_000, maxBytes: logBytes });
    const { plans } = new Catalogues();
    const agents = loadAgentCatalogue();
    this.runs = new Runs({ ...deps, plans, agents, queue: NO_QUEUE, clock: systemClock }, { timeoutMs: 60_000 });
    this.claims = new RunClaims({ ...deps, agents }, { timeoutMs: 60_000 });
    this.inputs = new RunInputs({ ...deps, log: this.log, queue: NO_QUEUE, clock: systemClock });
  }

  static async start(of: StackAddresses, logLength = 1_000, logBytes = LOG_BYTES): Promise<ScriptedWorker> {
    const redis = await connectRedis(of.redisUrl, 'commands', silentLogger);
    closeAfter('file', () => disconnectRedis(redis));
    return new ScriptedWorker(redis, of, logLength, logBytes);
  }

  /** Claims a run that a gateway of the stack has accepted. */
  async claim(userId: string, runId: string): Promise<RunLog> {
    const claim = await this.claims.claim(userId, runId);
    if (claim.outcome !== 'claimed') throw new Error(`the run is ${claim.outcome}`);
    return new RunLog({ log: this.log, clock: systemClock, claims: this.claims }, claim.run, () => undefined);
  }
}

/** Asks the user as an agent does, and suspends the run until there is an answer. */
export async function askUser(log: RunLog, id: string, request: InputRequest, expiresMs = 60_000): Promise<void> {
  await expect(log.requestInput(id, request, expiresMs)).rejects.toBeInstanceOf(RunSuspended);
  expect(await log.suspend(60_000)).toBe('waiting');
}

/** The id of the nth call of a run, from 1. */
export const callId = (runId: string, n: number): string => `call_${runId.slice('run_'.length)}_${n}`;

/**
 * Makes calls of the page's tools, as an agent does that is called again from the beginning.
 * @param first the number of the first call
 * @returns the outcomes; undefined if the run waits for some of them
 */
export async function callPageTools(log: RunLog, runId: string, first: number, ...tools: readonly string[]) {
  const outcomes = await Promise.allSettled(
    tools.map((tool, at) => callClientTool(log, { tool, callId: callId(runId, first + at), args: { at } }, 60_000)),
  );
  const reasons = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []));
  if (reasons.length === 0) return outcomes.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  for (const reason of reasons) expect(reason).toBeInstanceOf(RunSuspended);
  // A page answers at once, also before the run is suspended.
  expect(['waiting', 'answered']).toContain(await log.suspend(60_000));
  return undefined;
}

const COMPLETED = { duration_ms: 3, usage_record_id: 'usage_1' };
const call = (id: string, tool: string) => ({ callId: id, tool });

/** Two steps of text, reasoning, two parallel tools of which one fails, a replaced step, and the answer. */
export const FULL_RUN: readonly ScriptedEvent[] = [
  (log) => log.started(),
  (log) => log.modelReasoning({ reasoning: 'Look at both.', step: 1 }, {}),
  (log) => log.modelText({ thought: 'I look ', step: 1 }, {}),
  (log) => log.modelText({ thought: 'at both: ', step: 1 }, {}),
  (log) => log.toolExecuting({ ...call('call_a', 'analyze_workload'), args: { days: 7 } }),
  (log) => log.toolExecuting({ ...call('call_b', 'cost_analyzer'), args: {} }),
  (log) => log.toolCompleted(call('call_b', 'cost_analyzer'), { success: true, result: { units: 12 }, ...COMPLETED }),
  (log) =>
    log.toolCompleted(call('call_a', 'analyze_workload'), {
      success: false,
      error: { code: 'TOOL_FAILED', message: 'The tool failed.', retryable: false },
      ...COMPLETED,
    }),
  (log) => log.modelText({ thought: 'It is aborted', step: 2 }, {}),
  (log) => log.modelText({ thought: 'It is ', step: 3, replaces_step: 2 }, {}),
  (log) => log.modelText({ thought: 'twelve – 十二.', step: 3 }, {}),
  (log) => log.completed({ final_response: 'It is twelve – 十二.', summary: 'Twelve.' }),
];
