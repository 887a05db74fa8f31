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

/** `GET /ws/config`, `/ws/secure/config` and `/ws/secure/health`: the data that clients need before they connect. */
export function registerWsConfigRoutes(app: FastifyInstance, deps: WsConfigDeps): void {
  app.register(async (scope) => {
    // Pages of every origin that can connect can also read these responses.
    allowOrigins(scope, deps.config.CORS_ORIGINS);
    configRoute(scope, deps);
    secureConfigRoute(scope, deps);
    secureHealthRoute(scope, deps);
  });
}

function configRoute(app: FastifyInstance, { config, publicPaths }: WsConfigDeps): void {
  const errors = Object.entries(ERRORS).map(([code, { text, close, http, jsonrpc, retryable }]) => {
    return { code, message: text, close_code: close, http_status: http, jsonrpc_code: jsonrpc, retryable };
  });
  const close_codes = codesByCloseCode();
  typedRoutes(app).get('/ws/config', { schema: CONFIG }, async () => ({
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
    close_codes,
    socketio: { path: '/socket.io/' },
    mcp: { http: '/mcp', websocket: '/ws/mcp', sub_protocol: 'mcp', versions: MCP_VERSIONS },
  }));
}

/** Returns the error codes that close the connection, by close code. */
function codesByCloseCode(): Record<string, string[]> {
  const byCloseCode: Record<string, string[]> = {};
  for (const [code, { close }] of Object.entries(ERRORS)) {
    if (close !== null) byCloseCode[close] = [...(byCloseCode[close] ?? []), code];
  }
  return byCloseCode;
}

function secureConfigRoute(app: FastifyInstance, { config, clock }: WsConfigDeps): void {
  typedRoutes(app).get('/ws/secure/config', { schema: SECURE_CONFIG }, async () => ({
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
      server_time: timeOf(clock),
    },
  }));
}

function secureHealthRoute(app: FastifyInstance, { readiness, clock }: WsConfigDeps): void {
  typedRoutes(app).get('/ws/secure/health', { schema: SECURE_HEALTH }, async (_request, reply) => {
    const { redis, authService } = await readiness.check();
    const details = {
      service: 'secure_websocket',
      version: '2.0',
      security_level: 'enterprise',
      timestamp: timeOf(clock),
    } as const;
    if (!redis) return reply.status(503).send({ status: 'unhealthy', ...details });
    return reply.status(200).send({ status: authService ? 'healthy' : 'degraded', ...details });
  });
}

function timeOf(clock: Pick<Clock, 'now'>): string {
  return new Date(clock.now()).toISOString();
}
