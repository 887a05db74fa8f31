import { z } from 'zod';
import { LISTED_CONNECTIONS } from '../cluster/connection-registry.ts';
import { PublishedEventFields } from '../protocol/messages.ts';

/** Schemas of the admin routes. */

/** A user id as `userIdOf` (auth/user-id.ts) forms it. Services have one too. */
export const userId = z
  .string()
  .regex(/^[\w.@:+|/=~,!$%-]{1,2400}$/)
  .meta({
    description:
      'User id: the subject of the tokens of the user, with other characters than letters, digits and `_.@:+|/=~,!$-` percent-encoded.',
    examples: ['user-42'],
  });
export const UserPath = z.object({ id: userId });
export const ConnectionPath = z.object({
  id: userId,
  connection: z
    .string()
    .regex(/^[\w-]{1,64}$/)
    .meta({ description: 'Connection id.', examples: ['ws_01j9z3k8'] }),
});

export const Plan = z
  .strictObject({ plan: z.string().min(1).max(64).describe('Name of a plan of `plans.json`.') })
  .meta({ id: 'PlanChange', examples: [{ plan: 'pro' }] });

const identifier = z.string().min(1).max(128);
export const Revocation = z
  .union(
    [
      z.strictObject({ jti: identifier.describe('The `jti` claim of the token.') }),
      z.strictObject({ sid: identifier.describe('The `sid` claim of the tokens of a session.') }),
      z.strictObject({
        user_id: userId,
        before: z.iso
          .datetime({ offset: true })
          .optional()
          .describe('Tokens issued before this time are revoked; by default, all that exist now.'),
      }),
    ],
    { error: 'exactly one of "jti", "sid" and "user_id"; "before", an ISO 8601 time, goes with "user_id" only' },
  )
  .meta({ id: 'Revocation', examples: [{ jti: '3f0c8f3e-6b1d' }, { user_id: 'user-42' }] });

export const Event = PublishedEventFields.extend({
  durable: z
    .boolean()
    .default(false)
    .describe('Whether the event is appended to the event log of the user, so that a resuming client receives it.'),
}).meta({
  id: 'PublishedEvent',
  examples: [
    { type: 'maintenance.notice', fields: { at: '22:00', minutes: 5 } },
    { type: 'order.shipped', fields: { order: '4711' }, durable: true },
  ],
});

export const EventHeaders = z.object({
  'idempotency-key': z
    .string()
    .min(1)
    .max(255)
    .optional()
    .meta({
      description:
        'Name of this event, chosen by the service. A repetition appends nothing and returns the first answer.',
      examples: ['order-4711-shipped'],
    }),
});

export const Connections = z
  .object({
    user_id: z.string(),
    total: z.int().describe('Live connections of the user in the cluster.'),
    connections: z.array(
      z.object({
        connection_id: z.string(),
        node: z.string().optional().describe('Id of the node that serves the connection.'),
        endpoint: z.string().optional().describe('Path at which the client connected.'),
        opened_at: z.iso.datetime().optional(),
        lease_ends_at: z.iso.datetime().describe('When the lease expires unless the node renews it.'),
      }),
    ),
    has_more: z.boolean().describe(`Whether there are more than the ${LISTED_CONNECTIONS} that are listed.`),
  })
  .meta({
    id: 'Connections',
    examples: [
      {
        user_id: 'user-42',
        total: 1,
        connections: [
          {
            connection_id: 'ws_01j9z3k8',
            node: 'node_01j9z3a1',
            endpoint: '/ws',
            opened_at: '2026-11-20T10:00:00.000Z',
            lease_ends_at: '2026-11-20T10:05:00.000Z',
          },
        ],
        has_more: false,
      },
    ],
  });

export const ClosedConnections = z
  .object({ user_id: z.string(), closed: z.array(z.string()).describe('Ids of the connections that were closed.') })
  .meta({ id: 'ClosedConnections', examples: [{ user_id: 'user-42', closed: ['ws_01j9z3k8'] }] });

export const ChangedPlan = z
  .object({ user_id: z.string(), plan: z.string() })
  .meta({ id: 'ChangedPlan', examples: [{ user_id: 'user-42', plan: 'pro' }] });

export const BlockStatus = z
  .object({ user_id: z.string(), blocked: z.boolean() })
  .meta({ id: 'BlockStatus', examples: [{ user_id: 'user-42', blocked: true }] });

const until = z.iso
  .datetime()
  .describe('When the revocation expires; no token that it concerns is valid any longer then.');
export const Revoked = z
  .union([
    z.object({ jti: z.string(), until }),
    z.object({ sid: z.string(), until }),
    z.object({ user_id: z.string(), before: z.iso.datetime().describe('Tokens issued before this time are revoked.') }),
  ])
  .meta({
    id: 'Revoked',
    examples: [
      { jti: '3f0c8f3e-6b1d', until: '2026-11-20T11:00:00.000Z' },
      { user_id: 'user-42', before: '2026-11-20T10:00:00.000Z' },
    ],
  });

export const Nodes = z
  .object({
    nodes: z.array(
      z.object({
        node_id: z.string(),
        connections: z.int().describe('Open connections, up to five seconds ago.'),
        started_at: z.iso.datetime(),
      }),
    ),
  })
  .meta({
    id: 'Nodes',
    examples: [{ nodes: [{ node_id: 'node_01j9z3a1', connections: 1200, started_at: '2026-11-20T08:00:00.000Z' }] }],
  });

export const Appended = z
  .object({
    user_id: z.string(),
    type: z.string(),
    seq: z.int().describe('Number of the event in the event log of the user.'),
    epoch: z.string().describe('Log epoch: `seq` has a meaning only together with it.'),
  })
  .meta({
    id: 'AppendedEvent',
    examples: [{ user_id: 'user-42', type: 'order.shipped', seq: 17, epoch: 'epoch_6570a1b2c3d4' }],
  });

export const Published = z
  .object({
    user_id: z.string(),
    type: z.string(),
    nodes: z.int().describe('Nodes that received the event; 0 if the user has no connection.'),
  })
  .meta({ id: 'Published', examples: [{ user_id: 'user-42', type: 'maintenance.notice', nodes: 2 }] });
