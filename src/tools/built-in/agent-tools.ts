import type { AgentCatalogue } from '../../catalogue/agent-catalogue.ts';
import { TollgateError } from '../../protocol/errors.ts';
import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import type { ToolExecutor } from '../tool.ts';

const RUNS_SHOWN = 20;

/** Public state of a run, as returned to its user. */
export interface RunState {
  readonly run_id: string;
  readonly agent: string | null;
  readonly status: string;
  readonly accepted_at: string | null;
  readonly duration_ms: number | null;
}

/** Executors of `list_agents` and `get_agent_status`. */
export function agentTools(deps: {
  redis: Redis;
  keys: Keys;
  agents: AgentCatalogue;
}): Record<'list_agents' | 'get_agent_status', ToolExecutor> {
  const { redis, keys, agents } = deps;

  async function states(userId: string, runIds: readonly string[]): Promise<RunState[]> {
    const pipeline = redis.pipeline();
    for (const runId of runIds) {
      pipeline.hmget(keys.user(userId).run(runId), 'agent', 'status', 'accepted_at', 'ended_at');
    }
    const replies = runIds.length > 0 ? ((await pipeline.exec()) ?? []) : [];
    return replies.flatMap(([error, reply], at) => {
      const [agent = null, status = null, accepted = null, ended = null] = Array.isArray(reply) ? reply : [];
      if (error || status === null) return [];
      return [
        {
          run_id: runIds[at] ?? '',
          agent,
          status,
          accepted_at: accepted === null ? null : new Date(Number(accepted)).toISOString(),
          duration_ms: ended === null ? null : Number(ended) - Number(accepted),
        },
      ];
    });
  }

  return {
    async list_agents() {
      const list = agents.all.map(({ name, description, tools }) => ({ name, description, tools }));
      return { agents: list, count: list.length };
    },

    async get_agent_status(args, { userId }) {
      if (typeof args.run_id === 'string') {
        const [state] = await states(userId, [args.run_id]);
        if (!state) throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id: args.run_id } });
        return { run: state };
      }
      const recent = await redis.zrevrange(keys.user(userId).runs, 0, RUNS_SHOWN - 1);
      const runs = await states(userId, recent);
      const by_status: Record<string, number> = {};
      for (const { status } of runs) by_status[status] = (by_status[status] ?? 0) + 1;
      return { runs, count: runs.length, by_status };
    },
  };
}
