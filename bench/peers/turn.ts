import { Redis } from 'ioredis';

/** List of the jobs of a peer, from its server to its worker. */
export const JOBS = 'peer:{jobs}';

/** A request as the server of a peer passes it to its worker. */
export interface PeerJob {
  readonly user_id: string;
  readonly run_id: string;
  readonly message: string;
}

/** As many events as a run of the built-in agent with one tool call. */
const TYPES = [
  'agent_started',
  'agent_thinking',
  'tool_executing',
  'tool_completed',
  'agent_thinking',
  'agent_completed',
] as const;
/** The length of an event of Tollgate, about 400 bytes. */
const TEXT = 'Looking at your usage of the last seven days before I say anything about its trend.'.padEnd(240, '.');

/** Executes jobs one after the other, without a log, a quota or a bill: each event is published and forgotten. */
export async function work(
  redisUrl: string,
  publish: (userId: string, type: string, fields: object) => unknown,
): Promise<void> {
  const redis = new Redis(redisUrl);
  for (;;) {
    const popped = await redis.blpop(JOBS, 0);
    const job = JSON.parse(popped?.[1] ?? '{}') as PeerJob;
    for (const [step, type] of TYPES.entries()) {
      const { user_id, run_id } = job;
      publish(user_id, type, { user_id, run_id, step, thought: TEXT, timestamp: new Date().toISOString() });
    }
  }
}
