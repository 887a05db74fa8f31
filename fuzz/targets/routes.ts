import type { RouteOptions } from 'fastify';
import { registerClusterRoutes } from '../../src/admin/cluster-routes.ts';
import { registerConfigurationRoutes } from '../../src/admin/configuration-routes.ts';
import { registerQueueRoutes } from '../../src/admin/queue-routes.ts';
import { registerRunRoutes as registerAdminRunRoutes } from '../../src/admin/run-routes.ts';
import { registerUserRoutes as registerAdminUserRoutes } from '../../src/admin/user-routes.ts';
import { FrontEndScope } from '../../src/frontends/front-end-scope.ts';
import { registerInputRoutes } from '../../src/frontends/runs/input-routes.ts';
import { registerRunRoutes } from '../../src/frontends/runs/run-routes.ts';
import { registerUserRoutes } from '../../src/frontends/runs/user-routes.ts';
import { registerAdminRoutes } from '../../src/http/admin-routes.ts';
import { createApp } from '../../src/http/app.ts';
import { registerConfigRoutes } from '../../src/http/config-routes.ts';
import { acceptZodSchemas } from '../../src/http/route-docs.ts';
import { registerTicketRoutes } from '../../src/http/ticket-routes.ts';
import { registerToolServerRoutes } from '../../src/http/tool-server-routes.ts';
import { registerUserDataRoutes } from '../../src/http/user-data-routes.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { require, type Target } from '../lib/target.ts';

const logger = createLogger('fuzz', 'silent');
const app = createApp({ logger, trustedProxyHops: 0 });
acceptZodSchemas(app);
const seeds: string[] = [];

/** Answers with the input that the route validated; its handler is another component. */
app.addHook('onRoute', (route: RouteOptions) => {
  const method = [route.method].flat()[0] ?? 'GET';
  if (method !== 'OPTIONS' && method !== 'HEAD') seeds.push(`${method} ${route.url.replaceAll(/:\w+|\*/g, 'x')}\n{}`);
  route.handler = async ({ params, query, body }) => ({ params, query, body });
});
app.addHook('onSend', async (request, reply, payload) => {
  const { schema } = request.routeOptions;
  const codes = [...(schema?.['x-errors'] ?? []), ...(schema?.['x-rpc-errors'] ?? [])];
  reply.header('x-codes', codes.join(' '));
  return payload;
});

const service = { serviceId: 'fuzz', scopes: ['admin'] };
const identifyService = async () => service;
const scope = new FrontEndScope({
  origins: { allow: () => true },
  drainRetryMs: () => undefined,
  guard: { register: () => ({ authenticate: (work: () => unknown) => work(), release() {} }) },
  authenticator: { handshake: async () => ({ userId: 'user_1' }) },
  accounts: { admit: async (identity: unknown) => identity },
  refusals: { refused() {} },
  watch: { run: (_surface: unknown, _request: unknown, work: () => unknown) => work() },
  allowedOrigins: [],
} as never);
const deps = {
  ...{ identifyService, identify: async () => ({ userId: 'user_1' }), scope, logger, clock: systemClock },
  ...{ allowsKill: true, allowedOrigins: [], toolServers: () => [], calls: { name: 'x' } },
} as never;

registerAdminRoutes(app, deps);
registerConfigRoutes(app, deps);
registerToolServerRoutes(app, deps);
registerUserDataRoutes(app, deps);
registerTicketRoutes(app, deps);
registerClusterRoutes(app, deps);
registerConfigurationRoutes(app, deps);
registerQueueRoutes(app, deps);
registerAdminRunRoutes(app, deps);
registerAdminUserRoutes(app, deps);
registerRunRoutes(app, deps);
registerInputRoutes(app, deps);
registerUserRoutes(app, deps);
await app.ready();

/** Codes of a request that reaches no route, and of one that the HTTP server itself refuses. */
const ANY = new Set(['ENDPOINT_NOT_FOUND', 'FORMAT_ERROR', 'JSON_ERROR', 'MESSAGE_TOO_LARGE']);

const routes: Target = {
  name: 'routes',
  seeds: [
    ...seeds,
    'POST /v1/runs\n{"message":"Hi","agent":"triage","thread_id":"t","request_id":"r"}',
    'POST /v1/users/u/events\n{"type":"x_y","payload":{},"durable":true}',
    'PUT /v1/users/u/plan\n{"plan":"pro"}',
    'POST /v1/revocations\n{"user_id":"u","before":"2026-11-20T10:00:00Z"}',
    'GET /v1/admin/runs?limit=5&status=failed&cursor=u1-2\n',
    'GET /v1/admin/users?query=a&limit=10&cursor=0-0\n',
    'POST /v1/runs/run_1/inputs/input_1\n{"action":"accept","content":{"choice":"a"}}',
    'POST /v1/tools/count\n{"arguments":{"days":1},"idempotency_key":"k"}',
  ],
  words: [
    ...['GET ', 'POST ', 'PUT ', 'DELETE ', '?', '&', '=', '/', '%', '%2f', '\n', '[]', 'limit=', 'cursor=', 'after='],
    ...['user_id', 'plan', 'message', 'agent', 'thread_id', 'request_id', 'type', 'payload', 'before', 'session_id'],
    ...['token_id', 'reason', 'action', 'content', 'arguments', 'idempotency_key', 'u', '0-0', '2026-11-20T10:00:00Z'],
  ],
  maxBytes: 8_192,
  async run(input) {
    const [line = '', body = ''] = input.toString('latin1').split('\n', 2);
    const [method = '', sent = ''] = line.split(' ', 2);
    // The client of the test reads a backslash as a slash of a URL.
    const url = sent.replace(/[^\x21-\x7e]|\\/g, '');
    const known = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH'].find((name) => name === method) ?? 'GET';
    const payload = known === 'GET' || body === '' ? {} : { payload: body };
    const headers = { host: 'gateway', ...(body === '' ? {} : { 'content-type': 'application/json' }) };
    const answer = await app.inject({
      method: known as 'GET',
      url: `/${url.replace(/^\/+/, '')}`,
      headers,
      ...payload,
    });
    const { statusCode, body: text } = answer;
    require(statusCode < 500, `input is no fault of the gateway: ${statusCode} ${text}`);
    if (statusCode < 400) return;
    const { code, message } = (JSON.parse(text) as { error: { code: string; message: string } }).error;
    const codes = String(answer.headers['x-codes'] ?? '').split(' ');
    require(codes.includes(code) || (codes[0] === '' && ANY.has(code)), `the route documents ${code}: ${url}`);
    require(message.length <= 1_000 && !/node_modules|\/src\/|at \w+ \(/.test(message), 'an error is one sentence');
    throw new TollgateError('FORMAT_ERROR', { text: message });
  },
};

export const ROUTE_TARGETS: readonly Target[] = [routes];
