import { z } from 'zod';

/** Schemas of the routes that describe the WebSocket endpoints. */

const seconds = (what: string) => z.number().describe(`${what}, in seconds.`);
const names = z.array(z.string()).readonly();
const LIMITS = {
  max_connections_per_user: z.int().describe('In the whole cluster; a plan can set another number.'),
  max_message_size: z.int().describe('Bytes per message.'),
  max_message_rate: z.int().describe('Messages per user and minute.'),
  heartbeat_interval: seconds('Time between two heartbeats'),
  connection_timeout: seconds('Time without data after which the gateway closes a connection'),
};

export const WsConfig = z
  .object({
    status: z.literal('healthy'),
    websocket_config: z.object({
      available_endpoints: names,
      authentication_required: z.literal(true),
      supported_protocols: z.array(z.string()).describe('Sub-protocols that carry a token.'),
      cors_enabled: z.literal(true),
      environment: z.string(),
      ...LIMITS,
      auth_deadline: seconds('Time that a connection has to authenticate'),
    }),
    messages: names.describe('Types of the messages that clients can send.'),
    events: z.object({ durable: names, transient: names }).describe('Types of the events that clients receive.'),
    errors: z.array(
      z.object({
        code: z.string(),
        message: z.string(),
        close_code: z.int().nullable().describe('WebSocket close code; null if the connection stays open.'),
        http_status: z.int(),
        jsonrpc_code: z.int(),
        retryable: z.boolean(),
      }),
    ),
    close_codes: z.record(z.string(), z.array(z.string()).optional()).describe('Error codes per close code.'),
    socketio: z.object({ path: z.string() }),
    mcp: z.object({ http: z.string(), websocket: z.string(), sub_protocol: z.string(), versions: names }),
  })
  .meta({
    id: 'WsConfig',
    examples: [
      {
        status: 'healthy',
        websocket_config: {
          available_endpoints: ['/ws', '/ws/secure'],
          authentication_required: true,
          supported_protocols: ['jwt-auth'],
          cors_enabled: true,
          environment: 'production',
          max_connections_per_user: 3,
          max_message_size: 8192,
          max_message_rate: 30,
          heartbeat_interval: 45,
          connection_timeout: 600,
          auth_deadline: 10,
        },
        messages: ['ping', 'agent_request'],
        events: { durable: ['agent_started'], transient: ['pong'] },
        errors: [
          {
            code: 'NO_TOKEN',
            message: 'Authentication required: no credential was presented.',
            close_code: 1008,
            http_status: 401,
            jsonrpc_code: -33401,
            retryable: false,
          },
        ],
        close_codes: { 1008: ['NO_TOKEN'] },
        socketio: { path: '/socket.io/' },
        mcp: { http: '/mcp', websocket: '/ws/mcp', sub_protocol: 'mcp', versions: ['2026-07-28', '2025-11-25'] },
      },
    ],
  });

export const SecureConfig = z
  .object({
    status: z.literal('success'),
    websocket_config: z.object({
      version: z.string(),
      security_level: z.string(),
      features: z.record(z.string(), z.boolean()),
      auth: z.object({ methods: names, deadline: seconds('Time that a connection has to authenticate') }),
      limits: z.object(LIMITS),
      server_time: z.iso.datetime(),
    }),
  })
  .meta({
    id: 'SecureWsConfig',
    examples: [
      {
        status: 'success',
        websocket_config: {
          version: '2.0',
          security_level: 'enterprise',
          features: { secure_auth: true, ticket_auth: true },
          auth: { methods: ['header', 'subprotocol', 'ticket'], deadline: 10 },
          limits: {
            max_connections_per_user: 3,
            max_message_rate: 30,
            max_message_size: 8192,
            connection_timeout: 600,
            heartbeat_interval: 45,
          },
          server_time: '2026-11-20T10:00:00.000Z',
        },
      },
    ],
  });

const SECURE_HEALTH = {
  service: z.literal('secure_websocket'),
  version: z.string(),
  security_level: z.string(),
  timestamp: z.iso.datetime(),
};
const EXAMPLE = {
  service: 'secure_websocket',
  version: '2.0',
  security_level: 'enterprise',
  timestamp: '2026-11-20T10:00:00.000Z',
};
export const SecureHealth = z
  .object({ status: z.enum(['healthy', 'degraded']), ...SECURE_HEALTH })
  .meta({ id: 'SecureHealth', examples: [{ status: 'healthy', ...EXAMPLE }] });
export const SecureUnhealthy = z
  .object({ status: z.literal('unhealthy'), ...SECURE_HEALTH })
  .meta({ id: 'SecureUnhealthy', examples: [{ status: 'unhealthy', ...EXAMPLE }] });
