import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import type { Clock } from '../lib/clock.ts';
import { MCP_VERSIONS } from '../mcp/mcp-server.ts';
import { ERRORS } from '../protocol/error-table.ts';
import { AUTH_METHODS } from '../protocol/identity.ts';
import { CLIENT_MESSAGE_NAMES, DURABLE_EVENTS, TRANSIENT_EVENTS } from '../protocol/messages.ts';
import { allowOrigins } from './cors.ts';
import type { Readiness } from './readiness.ts';
import { PUBLIC, PUBLIC_ERRORS, typedRoutes } from './route-docs.ts';
import { SecureConfig, SecureHealth, SecureUnhealthy, WsConfig } from './ws-config-schemas.ts';

export interface WsConfigDeps {
  readonly config: Config;
  readonly readiness: Readiness;
  readonly clock: Clock;
  readonly publicPaths: readonly string[];
}

/** Without the development bypass, which is not a public way to authenticate. */
const PUBLIC_AUTH_METHODS = AUTH_METHODS.filter((method) => method !== 'development_bypass' && method !== 'run');

const DOCUMENTED = { tags: ['websocket'], security: PUBLIC, 'x-errors': PUBLIC_ERRORS };
const CONFIG = {
  ...DOCUMENTED,
  operationId: 'getWsConfig',
  summary: 'Get the WebSocket configuration',
  description: 'Lists endpoints, limits, message types, event types, errors and close codes.',
  response: { 200: WsConfig },
};
const SECURE_CONFIG = {
  ...DOCUMENTED,
  operationId: 'getSecureWsConfig',
  summary: 'Get the configuration of /ws/secure',
  description: 'Lists the features, authentication methods and limits of `/ws/secure`.',
  response: { 200: SecureConfig },
};
const SECURE_HEALTH = {
  ...DOCUMENTED,
  operationId: 'getSecureWsHealth',
  summary: 'Check the health of /ws/secure',
  description: '`degraded` without the auth service, `unhealthy` without Redis. A result is cached for one second.',
  response: { 200: SecureHealth, 503: SecureUnhealthy },
};

/** `GET /ws/config`, `/ws/secure/config` and `/ws/secure/health`: what clients need to know before they connect. */
export function registerWsConfigRoutes(app: FastifyInstance, deps: WsConfigDeps): void {
  app.register(async (scope) => {
    // Pages of every origin that can connect can also read these responses.
    allowOrigins(scope, deps.config.CORS_ORIGINS);
    addRoutes(scope, deps);
  });
}

function addRoutes(app: FastifyInstance, { config, readiness, clock, publicPaths }: WsConfigDeps): void {
  const routes = typedRoutes(app);
  const now = () => new Date(clock.now()).toISOString();
  const errors = Object.entries(ERRORS).map(([code, { text, close, http, jsonrpc, retryable }]) => {
    return { code, message: text, close_code: close, http_status: http, jsonrpc_code: jsonrpc, retryable };
  });
  const closing = Object.entries(ERRORS).filter(([, { close }]) => close !== null);
  const closeCodes = Object.groupBy(
    closing.map(([code, { close }]) => ({ code, close: String(close) })),
    ({ close }) => close,
  );

  routes.get('/ws/config', { schema: CONFIG }, async () => ({
    status: 'healthy' as const,
    websocket_config: {
      available_endpoints: publicPaths,
      authentication_required: true as const,
      supported_protocols: ['jwt-auth'],
      cors_enabled: true as const,
      environment: config.ENVIRONMENT,
      max_connections_per_user: config.MAX_CONNECTIONS_PER_USER,
      max_message_size: config.MAX_MESSAGE_BYTES,
      max_message_rate: config.MESSAGE_RATE_PER_MINUTE,
      heartbeat_interval: config.HEARTBEAT_INTERVAL_SECONDS,
      connection_timeout: config.CONNECTION_TIMEOUT_SECONDS,
      auth_deadline: config.AUTH_DEADLINE_SECONDS,
    },
    messages: CLIENT_MESSAGE_NAMES,
    events: { durable: DURABLE_EVENTS, transient: TRANSIENT_EVENTS },
    errors,
    close_codes: Object.fromEntries(
      Object.entries(closeCodes).map(([close, rows]) => [close, rows?.map(({ code }) => code)]),
    ),
    socketio: { path: '/socket.io/' },
    mcp: { http: '/mcp', websocket: '/ws/mcp', sub_protocol: 'mcp', versions: MCP_VERSIONS },
  }));

  routes.get('/ws/secure/config', { schema: SECURE_CONFIG }, async () => ({
    status: 'success' as const,
    websocket_config: {
      version: '2.0',
      security_level: 'enterprise',
      features: {
        secure_auth: true,
        header_based_jwt: true,
        subprotocol_auth: true,
        service_auth: true,
        ticket_auth: true,
        cors_validation: true,
        connection_limits: true,
        rate_limiting: true,
        resumable_events: true,
      },
      auth: { methods: PUBLIC_AUTH_METHODS, deadline: config.AUTH_DEADLINE_SECONDS },
      limits: {
        max_connections_per_user: config.MAX_CONNECTIONS_PER_USER,
        max_message_rate: config.MESSAGE_RATE_PER_MINUTE,
        max_message_size: config.MAX_MESSAGE_BYTES,
        connection_timeout: config.CONNECTION_TIMEOUT_SECONDS,
        heartbeat_interval: config.HEARTBEAT_INTERVAL_SECONDS,
      },
      server_time: now(),
    },
  }));

  routes.get('/ws/secure/health', { schema: SECURE_HEALTH }, async (_request, reply) => {
    const { redis, authService } = await readiness.check();
    const details = {
      service: 'secure_websocket',
      version: '2.0',
      security_level: 'enterprise',
      timestamp: now(),
    } as const;
    if (!redis) return reply.status(503).send({ status: 'unhealthy', ...details });
    return reply.status(200).send({ status: authService ? 'healthy' : 'degraded', ...details });
  });
}
