import { z } from 'zod';
import { userId } from '../http/admin-schemas.ts';
import { RUN_STATES } from '../jobs.ts';
import { limit, nextCursor } from './schemas.ts';

const time = z.string().nullable();
const EMAIL = 'E-mail address in the token of the latest open connection; null if it is not known.';
const PLAN = 'Plan of the account, else of the latest connection, else of the latest usage record; null without any.';
const reason = z.string().nullable().describe('Error code of a failed run; null for any other.');
const cursor = (form: RegExp) => z.string().regex(form).optional().describe('`next_cursor` of the previous page.');

export const UsersQuery = z.object({
  query: z
    .string()
    .max(255)
    .regex(/^[\w.@:+|/=~,!$%-]*$/)
    .default('')
    .describe('Part of a user id.'),
  cursor: cursor(/^\d{1,4}-\d{1,20}$/),
  limit,
});
export const UsersBody = z
  .object({
    users: z.array(
      z.object({
        user_id: z.string(),
        email: z.string().nullable().describe(EMAIL),
        plan: z.string().nullable().describe(PLAN),
        blocked: z.boolean(),
        connections: z.number(),
      }),
    ),
    next_cursor: nextCursor,
  })
  .meta({
    id: 'Users',
    examples: [
      {
        users: [{ user_id: 'user_pro', email: 'pro@demo.local', plan: 'pro', blocked: false, connections: 1 }],
        next_cursor: null,
      },
    ],
  });

const RunFields = {
  run_id: z.string(),
  user_id: z.string(),
  status: z.enum(RUN_STATES),
  agent: z.string(),
  thread_id: z.string(),
  request_id: z.string(),
  transport: z.string(),
  message: z.string().describe('First 200 characters.'),
  accepted_at: z.string(),
  ended_at: time,
  reason,
  trace_id: z.string().nullable().describe('Trace in which the run was accepted; null if traces are not recorded.'),
};
const RUN_EXAMPLE = {
  run_id: 'run_01j9z4aa',
  user_id: 'user_pro',
  status: 'completed' as const,
  agent: 'analyst',
  thread_id: 'thread_01j9z4ab',
  request_id: 'req_01j9z4ac',
  transport: 'websocket',
  message: 'How is my workload doing?',
  accepted_at: '2026-11-30T12:00:00.000Z',
  ended_at: '2026-11-30T12:00:01.200Z',
  reason: null,
  trace_id: null,
};
export const RunsQuery = z.object({
  user_id: userId.optional(),
  agent: z.string().min(1).max(128).optional().describe('Only runs of this agent.'),
  status: z.enum(RUN_STATES).optional().describe('Only runs in this state.'),
  cursor: cursor(/^(u|u\d{1,16}-\d{1,5}|\d{1,9}(-\d{1,9})?)$/),
  limit,
});
export const RunsBody = z
  .object({ runs: z.array(z.object(RunFields)), next_cursor: nextCursor })
  .meta({ id: 'AdminRuns', examples: [{ runs: [RUN_EXAMPLE], next_cursor: null }] });

export const RunPath = z.object({
  id: userId,
  run_id: z
    .string()
    .regex(/^[\w-]{1,64}$/)
    .meta({ description: 'Run id.', examples: ['run_01j9z4aa'] }),
});
export const RunBody = z
  .object({
    run: z.object({
      ...RunFields,
      final_response: z.string().nullable().describe('Answer of a completed run, while its thread has it.'),
    }),
    events: z.array(z.object({ seq: z.number(), type: z.string(), at: z.string(), fields: z.looseObject({}) })),
    complete: z.boolean().describe('Whether `events` has all events so far.'),
  })
  .meta({
    id: 'AdminRun',
    examples: [
      {
        run: { ...RUN_EXAMPLE, final_response: 'It is fine.' },
        events: [{ seq: 1, type: 'agent_started', at: '2026-11-30T12:00:00.010Z', fields: { status: 'started' } }],
        complete: true,
      },
    ],
  });
export const CancelledRun = z
  .object({ run_id: z.string(), outcome: z.literal('requested') })
  .meta({ id: 'CancelledRun', examples: [{ run_id: 'run_01j9z4aa', outcome: 'requested' }] });
export const RetriedRun = z.object({ run_id: z.string(), thread_id: z.string(), retry_of: z.string() }).meta({
  id: 'RetriedRun',
  examples: [{ run_id: 'run_01j9z4bb', thread_id: 'thread_01j9z4ab', retry_of: 'run_01j9z4aa' }],
});

const Reason = z.object({
  code: z.string(),
  because: z.string().describe('A clause that follows "refused because".'),
  until: time.describe('When it ends by itself; null if it does not.'),
  remedy: z.string().describe('What ends it earlier, or at all.'),
  all: z.boolean().describe('Whether all requests are refused, not only some.'),
});
const Limit = z.object({
  name: z.string(),
  used: z.number(),
  limit: z.number(),
  ends_at: time.describe('When the limit allows more by itself; null if nothing is counted or it does not.'),
  reached: z.boolean(),
  code: z.string().describe('Code of a refusal by this limit.'),
  refuses: z.string().describe('What is refused above the limit.'),
});
const Refusal = z.object({
  code: z.string(),
  count: z.int().describe('Refusals with this code by one process since its last entry, of at most about a minute.'),
  at: z.string().describe('Time of the last one.'),
  text: z.string(),
});
export const RefusedUsersQuery = z.object({
  code: z
    .string()
    .regex(/^[A-Z_]{1,64}$/)
    .optional()
    .describe('Only refusals with this code.'),
  limit,
});
export const RefusedUsersBody = z
  .object({
    users: z.array(
      z.object({
        user_id: z.string(),
        count: z.int(),
        last_at: z.string(),
        codes: z.array(z.object({ code: z.string(), count: z.int() })),
      }),
    ),
  })
  .meta({
    id: 'RefusedUsers',
    examples: [
      {
        users: [
          {
            user_id: 'user_pro',
            count: 3,
            last_at: '2026-11-30T12:00:05.000Z',
            codes: [{ code: 'RATE_LIMITED', count: 3 }],
          },
        ],
      },
    ],
  });

const Connection = z.object({
  connection_id: z.string(),
  node: z.string().optional(),
  endpoint: z.string().optional(),
  opened_at: z.string().optional(),
  session_id: z.string().optional().describe('Session (`sid`) of the token at the admission.'),
  lease_ends_at: z.string(),
});
export const UserBody = z
  .object({
    user_id: z.string(),
    email: z.string().nullable().describe(EMAIL),
    account: z.object({ plan: z.string().nullable(), blocked: z.boolean(), revoked_before: time }),
    plan: z.string().nullable().describe(PLAN),
    refused: z.array(Reason).describe('Why requests of the user are refused now; empty if they are not.'),
    limits: z.array(Limit).describe('All limits of the user with their counters; empty without a plan.'),
    refusals: z.array(Refusal).describe('The latest 50, newest first, at most of the last day.'),
    connections: z.array(Connection),
    connections_total: z.number(),
    usage: z
      .looseObject({})
      .nullable()
      .describe('Used and remaining quota, as in `usage_summary`; null without a plan.'),
    threads: z.number(),
    event_log: z.object({ epoch: z.string().nullable(), seq: z.number() }),
    runs: z.array(z.object(RunFields)).describe('The latest 20.'),
  })
  .meta({
    id: 'AdminUser',
    examples: [
      {
        user_id: 'user_pro',
        email: 'pro@demo.local',
        account: { plan: null, blocked: false, revoked_before: null },
        plan: 'pro',
        refused: [
          {
            code: 'RATE_LIMITED',
            because: 'the user has sent the 60 messages that the plan allows per minute',
            until: '2026-11-30T12:00:41.000Z',
            remedy: 'The client waits and sends again. A plan with a higher limit ends it at once.',
            all: true,
          },
        ],
        limits: [
          {
            name: 'messages_per_minute',
            used: 63,
            limit: 60,
            ends_at: '2026-11-30T12:00:41.000Z',
            reached: true,
            code: 'RATE_LIMITED',
            refuses: 'every message and request',
          },
        ],
        refusals: [{ code: 'RATE_LIMITED', count: 3, at: '2026-11-30T12:00:05.000Z', text: 'Rate limit exceeded.' }],
        connections: [],
        connections_total: 0,
        usage: null,
        threads: 1,
        event_log: { epoch: 'epoch_6570a1b2c3d4', seq: 17 },
        runs: [RUN_EXAMPLE],
      },
    ],
  });

export const QueuesBody = z
  .object({
    queues: z.array(
      z.object({
        name: z.string(),
        waiting: z.number(),
        active: z.number(),
        delayed: z.number(),
        failed: z.number(),
      }),
    ),
    failed: z.array(
      z.object({
        queue: z.string(),
        job_id: z.string(),
        name: z.string(),
        reason: z.string(),
        attempts: z.number(),
        at: time,
      }),
    ),
  })
  .meta({
    id: 'Queues',
    examples: [
      {
        queues: [{ name: 'agent-runs', waiting: 0, active: 3, delayed: 0, failed: 0 }],
        failed: [
          {
            queue: 'maintenance',
            job_id: '17',
            name: 'close-windows',
            reason: 'Redis is unavailable',
            attempts: 1,
            at: '2026-11-30T12:00:00.000Z',
          },
        ],
      },
    ],
  });
export const JobPath = z.object({
  job_id: z
    .string()
    .regex(/^[\w:.-]{1,128}$/)
    .meta({ description: 'Id of a failed job.', examples: ['17'] }),
});
export const RetriedJob = z
  .object({ job_id: z.string(), outcome: z.literal('requested') })
  .meta({ id: 'RetriedJob', examples: [{ job_id: '17', outcome: 'requested' }] });
