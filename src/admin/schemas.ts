import { z } from 'zod';

/** Schemas that several routes of the console share. */

const MAX_PAGE = 200;
export const limit = z.coerce.number().int().min(1).max(MAX_PAGE).default(50).describe('Entries per page.');
export const nextCursor = z.string().nullable().describe('Cursor of the next page; null on the last one.');
const ms = z.number().nullable();
const figure = z.number().nullable();
const counts = z.record(z.string(), z.number());

export const Me = z
  .object({
    subject: z.string().describe('`user:<user id>` for an operator, the id of a service otherwise.'),
    kind: z.enum(['operator', 'service']),
    scopes: z.array(z.string()),
    expires_at: z.iso.datetime(),
    node_id: z.string(),
  })
  .meta({
    id: 'Caller',
    examples: [
      {
        subject: 'user:user_admin',
        kind: 'operator',
        scopes: ['admin', 'admin:read'],
        expires_at: '2026-11-30T12:01:00.000Z',
        node_id: 'node_01j9z3a1',
      },
    ],
  });

const Durations = z.object({ p50_ms: ms, p99_ms: ms, count: z.number() });
export const OverviewBody = z
  .object({
    at: z.iso.datetime(),
    gateways: z.int(),
    workers: z.int(),
    connections: z.object({
      total: z.number(),
      by_plan: counts,
      by_transport: counts,
      by_node: counts,
      by_state: counts,
    }),
    per_second: z.object({
      messages: z.number(),
      runs: z.number(),
      events: z.number(),
      tool_calls: z.number(),
      usage_records: z.number(),
    }),
    first_event: Durations,
    run_duration: Durations,
    last_minute: z.object({
      evictions: z.number(),
      resumes: z.number(),
      replay_gaps: z.number(),
      handshakes: z.number(),
      handshake_failures: z.number(),
      runs_failed: z.number(),
      refreshes: z.number(),
      refresh_failures: z.number(),
    }),
    refusals: counts.describe('By error code, in the last minute.'),
    breakers: z.object({ auth_service: z.string() }),
    queue: z.object({ runs: figure }),
    ledger: z.object({ lag_seconds: figure }),
    redis: z.object({ p50_ms: ms, p99_ms: ms, failures: z.number() }),
    event_loop: z.object({ p99_ms: ms }),
    memory: z.object({ rss_bytes: z.number() }),
  })
  .meta({
    id: 'Overview',
    examples: [
      {
        at: '2026-11-30T12:00:00.000Z',
        gateways: 2,
        workers: 1,
        connections: {
          total: 1200,
          by_plan: { free: 900, pro: 300 },
          by_transport: { websocket: 700, 'socket.io': 500 },
          by_node: { node_01j9z3a1: 600, node_01j9z3a2: 600 },
          by_state: { active: 1200 },
        },
        per_second: { messages: 40.5, runs: 2.1, events: 31, tool_calls: 4.2, usage_records: 4.4 },
        first_event: { p50_ms: 10, p99_ms: 50, count: 126 },
        run_duration: { p50_ms: 1000, p99_ms: 5000, count: 120 },
        last_minute: {
          evictions: 0,
          resumes: 3,
          replay_gaps: 0,
          handshakes: 20,
          handshake_failures: 1,
          runs_failed: 0,
          refreshes: 40,
          refresh_failures: 0,
        },
        refusals: { RATE_LIMITED: 2 },
        breakers: { auth_service: 'closed' },
        queue: { runs: 0 },
        ledger: { lag_seconds: 0.4 },
        redis: { p50_ms: 0.5, p99_ms: 1, failures: 0 },
        event_loop: { p99_ms: 12 },
        memory: { rss_bytes: 512_000_000 },
      },
    ],
  });

export const NodesBody = z
  .object({
    nodes: z.array(
      z.object({
        node_id: z.string(),
        role: z.enum(['gateway', 'worker']),
        version: z.string().nullable(),
        host: z.string().nullable(),
        started_at: z.string(),
        uptime_seconds: z.number(),
        draining: z.boolean(),
        connections: z.number(),
        runs: z.number().nullable().describe('Runs that a worker executes; null for a gateway.'),
        memory: z.object({ rss_bytes: figure, heap_bytes: figure }),
        event_loop: z.object({ p99_ms: ms }),
        cpu_percent: figure,
        this_node: z.boolean().describe('Whether it answers this request.'),
      }),
    ),
  })
  .meta({
    id: 'NodeDetails',
    examples: [
      {
        nodes: [
          {
            node_id: 'node_01j9z3a1',
            role: 'gateway',
            version: '0.1.0',
            host: 'tollgate-0',
            started_at: '2026-11-30T11:00:00.000Z',
            uptime_seconds: 3600,
            draining: false,
            connections: 400,
            runs: null,
            memory: { rss_bytes: 128_000_000, heap_bytes: 40_000_000 },
            event_loop: { p99_ms: 11 },
            cpu_percent: 4.2,
            this_node: true,
          },
        ],
      },
    ],
  });

export const NodePath = z.object({
  node_id: z
    .string()
    .regex(/^[\w-]{1,64}$/)
    .meta({ description: 'Id of a gateway or worker.', examples: ['node_01j9z3a1'] }),
});
export const Draining = z
  .object({ node_id: z.string(), role: z.enum(['gateway', 'worker']), draining: z.literal(true) })
  .meta({ id: 'DrainingNode', examples: [{ node_id: 'node_01j9z3a1', role: 'gateway', draining: true }] });
export const Killing = z
  .object({ node_id: z.string(), outcome: z.literal('requested') })
  .meta({ id: 'KilledNode', examples: [{ node_id: 'node_01j9z3a1', outcome: 'requested' }] });

const time = z.iso.datetime({ offset: true });
export const SeriesQueryString = z.object({
  step: z.enum(['minute', 'hour']).default('minute').describe('Length of a step.'),
  from: time.optional().describe('First step; by default an hour ago, or a day with `step=hour`.'),
  to: time.optional().describe('Last step; by default now.'),
  node: z
    .string()
    .regex(/^[\w-]{1,64}$/)
    .optional()
    .describe('Only this gateway or worker.'),
});
export const SeriesBody = z
  .object({
    step: z.enum(['minute', 'hour']),
    from: z.iso.datetime(),
    to: z.iso.datetime(),
    node: z.string().nullable(),
    at: z.array(z.iso.datetime()).describe('Start of each step.'),
    series: z
      .record(z.string(), z.array(z.number().nullable()))
      .describe('One value per step; null if none was reported.'),
  })
  .meta({
    id: 'Series',
    examples: [
      {
        step: 'minute',
        from: '2026-11-30T11:01:00.000Z',
        to: '2026-11-30T11:02:00.000Z',
        node: null,
        at: ['2026-11-30T11:01:00.000Z', '2026-11-30T11:02:00.000Z'],
        series: { connections: [1200, 1210], messages: [2430, null] },
      },
    ],
  });

export const AlertsBody = z
  .object({
    at: z.iso.datetime(),
    alerts: z.array(
      z.object({
        name: z.string(),
        severity: z.enum(['critical', 'warning']),
        summary: z.string(),
        value: z.number(),
        threshold: z.number(),
        unit: z.string(),
        since: z.iso.datetime().describe('When this node first saw the condition.'),
        runbook: z.string().describe('File and anchor in `docs/`.'),
      }),
    ),
    evaluated: z.array(z.string()).describe('Names of the alerts whose conditions are evaluated.'),
  })
  .meta({
    id: 'Alerts',
    examples: [
      {
        at: '2026-11-30T12:00:00.000Z',
        alerts: [
          {
            name: 'TollgateRunsFail',
            severity: 'critical',
            summary: 'More than 5 % of the runs fail',
            value: 7.1,
            threshold: 5,
            unit: '%',
            since: '2026-11-30T11:58:00.000Z',
            runbook: 'runbook.md#tollgaterunsfail',
          },
        ],
        evaluated: ['TollgateRunsFail'],
      },
    ],
  });

export const AuditQueryString = z.object({
  cursor: z
    .string()
    .regex(/^\d{1,15}-\d{1,10}$/)
    .optional()
    .describe('`next_cursor` of the previous page.'),
  limit,
  actor: z.string().min(1).max(2_410).optional().describe('Only actions of this service or operator.'),
  action: z.string().min(1).max(64).optional().describe('Only this action.'),
});
export const AuditBody = z
  .object({
    entries: z.array(
      z.object({
        id: z.string(),
        at: z.iso.datetime(),
        actor: z.string(),
        action: z.string().describe('`operationId` of the route.'),
        target: z.record(z.string(), z.string()),
        from: z.string().describe('Client address.'),
        user_agent: z.string().nullable(),
        status: z.int().describe('HTTP status of the response.'),
        error: z.string().nullable().describe('Code of the error; null if the action succeeded.'),
        node_id: z.string(),
      }),
    ),
    next_cursor: nextCursor,
  })
  .meta({
    id: 'AuditLog',
    examples: [
      {
        entries: [
          {
            id: '1764504000000-0',
            at: '2025-11-30T12:00:00.000Z',
            actor: 'user:user_admin',
            action: 'blockUser',
            target: { user_id: 'user_pro' },
            from: '203.0.113.7',
            user_agent: 'Mozilla/5.0',
            status: 200,
            error: null,
            node_id: 'node_01j9z3a1',
          },
        ],
        next_cursor: null,
      },
    ],
  });
