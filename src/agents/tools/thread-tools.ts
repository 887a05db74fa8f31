import { derivedId } from '../../lib/ids.ts';
import { type Plans, THREADS_KEPT } from '../../policy/plans.ts';
import { TollgateError } from '../../protocol/errors.ts';
import type { Threads } from '../threads.ts';
import type { ToolExecutor } from './tool.ts';

/** `create_thread` and `get_thread_history`. */
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
      if (outcome === 'full') {
        const text = `There can be ${allowed ?? THREADS_KEPT} threads, and all of them are in use.`;
        const fields = { limit: allowed ?? THREADS_KEPT, upgrade_path: planWithMore(plans, caller.plan) };
        throw new TollgateError('QUOTA_EXCEEDED', { text, fields });
      }
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

/** The lowest plan above this one that allows more threads; null when none does. */
function planWithMore(plans: Plans, name: string): string | null {
  const { rank, threads } = plans.effective(name);
  if (threads === null) return null;
  const better = plans.all.find((plan) => plan.rank > rank && (plan.threads === null || plan.threads > threads));
  return better?.name ?? null;
}
