import type { Plans } from '../../catalogue/plans.ts';
import { derivedId } from '../../lib/ids.ts';
import { threadsFull } from '../../limits/run-limits.ts';
import type { Threads } from '../../threads/threads.ts';
import type { ToolExecutor } from '../tool.ts';

/** Executors of `create_thread` and `get_thread_history`. */
export function threadTools({
  threads,
  plans,
}: {
  threads: Threads;
  plans: Plans;
}): Record<'create_thread' | 'get_thread_history', ToolExecutor> {
  return {
    async create_thread(args, { userId, caller, callId }) {
      const threadId = derivedId('thread', userId, callId);
      const title = typeof args.title === 'string' ? args.title : 'New thread';
      const allowed = plans.effective(caller.plan).threads;
      const { outcome, threads: count } = await threads.create(userId, { threadId, title, allowed });
      if (outcome === 'full') throw threadsFull(plans, caller.plan);
      return { thread_id: threadId, title, threads: count };
    },

    async get_thread_history(args, { userId }) {
      const limit = typeof args.limit === 'number' ? args.limit : 20;
      if (typeof args.thread_id === 'string') {
        const page = await threads.history(userId, { threadId: args.thread_id, before: undefined, limit });
        return { thread_id: args.thread_id, ...page };
      }
      const list = await threads.list(userId, limit);
      return { threads: list, count: list.length };
    },
  };
}
