import type { StackAddresses } from '../stack.ts';
import { ask, type Request } from './carriers.ts';
import type { Surface } from './meter.ts';
import { FEW_TEXTS, type Shape, TEXTS, VALUES } from './shapes.ts';

type Headers = Readonly<Record<string, string>>;

/** Node accepts heads of 16 KiB. */
const HEAD_SIZES = [2_000, 13_000] as const;
/** Routes accept bodies up to 64 KiB. */
const BODY_SIZES = [2_000, 60_000] as const;
const EVENT_SIZES = [1_000, 7_800] as const;
const JSON_TYPE: Headers = { 'content-type': 'application/json' };
const FORM_TYPE: Headers = { 'content-type': 'application/x-www-form-urlencoded' };

/** The request of a surface, and the part that contains the input. */
interface Route {
  readonly url: string;
  readonly path: string;
  readonly method?: string;
  readonly headers?: Headers;
  readonly family?: string;
}

function headers({ url, path, method = 'GET', headers: others = {}, family }: Route, names: Headers): Surface[] {
  return Object.entries(names).map(([name, prefix]) => ({
    family: family ?? `\`${method} ${path}\`, headers`,
    name: `${method} ${path}, ${name}: ${prefix}…`,
    sizes: HEAD_SIZES,
    shapes: TEXTS,
    send: (input) => ask({ url, path, method, headers: { ...others, [name]: `${prefix}${input}` } }),
  }));
}

/** @param paths `…` stands for the input */
function targets(route: Omit<Route, 'path'>, paths: readonly string[], shapes: readonly Shape[] = TEXTS): Surface[] {
  const { url, method = 'GET', headers: all = {}, family = 'path and query' } = route;
  return paths.map((path) => ({
    family,
    name: `${method} ${path}`,
    sizes: HEAD_SIZES,
    shapes,
    send: (input) => ask({ url, method, headers: all, path: path.replaceAll('…', () => inTarget(input)) }),
  }));
}

/** Node's client rejects spaces; other characters pass unchanged. */
function inTarget(input: string): string {
  return input.replaceAll(' ', '%20');
}

/** @param templates `…` stands for the input */
function bodies(
  { url, path, method = 'POST', headers: all = JSON_TYPE, family }: Route,
  templates: readonly string[],
  { shapes, sizes = BODY_SIZES }: { readonly shapes: readonly Shape[]; readonly sizes?: Surface['sizes'] },
): Surface[] {
  return templates.map((template) => ({
    family: family ?? `\`${method} ${path}\`, body`,
    name: `${method} ${path}, ${template}`,
    sizes,
    shapes,
    send: (input) => {
      const request: Request = { url, path, method, headers: all, body: template.replaceAll('…', () => input) };
      return ask(request);
    },
  }));
}

const MCP: Headers = { ...JSON_TYPE, accept: 'application/json, text/event-stream' };
const MCP_CALL = (params: string) => `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":${params}}`;

/** HTTP routes of a gateway that need no credential. */
export function publicSurfaces({ gateways }: StackAddresses): Surface[] {
  const url = String(gateways[0]?.url);
  const mcp = { url, path: '/mcp', method: 'POST' };
  return [
    ...headers(mcp, { authorization: 'Bearer ', origin: '', host: '', 'x-forwarded-for': '', traceparent: '' }),
    ...headers(mcp, { accept: '', 'content-type': '', cookie: '', 'mcp-protocol-version': '', 'mcp-method': '' }),
    ...bodies({ ...mcp, headers: MCP }, ['…', MCP_CALL('…')], { shapes: VALUES }),
    ...headers({ url, path: '/v1/tickets', method: 'POST' }, { authorization: 'Bearer ', origin: '', cookie: '' }),
    ...bodies({ url, path: '/v1/tickets' }, ['…', '{"origin":…}'], { shapes: VALUES }),
    ...headers(
      { url, path: '/.well-known/oauth-protected-resource' },
      { host: '', origin: '', 'x-forwarded-host': '' },
    ),
    ...headers({ url, path: '/.well-known/oauth-protected-resource' }, { 'x-forwarded-proto': '', accept: '' }),
    ...headers(
      { url, path: '/v1/usage/records' },
      { authorization: 'Bearer ', 'x-service-id': '', 'x-user-context': '' },
    ),
    ...headers({ url, path: '/health/ready' }, { 'user-agent': '', 'accept-encoding': '', range: '' }),
    ...targets({ url, family: 'path and query, no credential' }, [
      '/…',
      '/v1/users/…/connections',
      '/v1/usage/records?cursor=…',
      '/ws/config?…',
      '/console/…',
      '/docs/…',
    ]),
  ];
}

/** Routes of a gateway for services, with a token that has all scopes. */
export function serviceSurfaces({ gateways }: StackAddresses, token: string): Surface[] {
  const url = String(gateways[0]?.url);
  const authorization = `Bearer ${token}`;
  const json = { ...JSON_TYPE, authorization };
  const family = 'service routes, bodies';
  const users = '/v1/users/user_cpu';
  return [
    ...targets({ url, headers: { authorization }, family: 'service routes, paths and queries' }, [
      '/v1/users/…/connections',
      '/v1/usage/records?cursor=…',
      '/v1/usage/records?user_id=…',
      '/v1/usage/records?tool=…',
      '/v1/usage/tallies?from=…&to=2026-01-01T00:00:00Z',
      '/v1/usage/tallies?from=2026-01-01T00&to=2026-01-01T01&group_by=…',
      '/v1/usage/windows?from=…&to=2026-01-01T00:00:00Z',
      '/v1/usage/export?format=…&window=…',
      '/v1/usage/verify?from=…&to=1',
    ]),
    ...headers(
      { url, path: '/v1/usage/records', headers: { authorization }, family: 'service routes, headers' },
      { accept: '', 'x-service-id': '', 'x-user-context': '', traceparent: '' },
    ),
    ...bodies({ url, path: `${users}/plan`, method: 'PUT', headers: json, family }, ['…', '{"plan":…}'], {
      shapes: VALUES,
    }),
    ...bodies({ url, path: `${users}/events`, headers: json, family }, ['{"type":"x","fields":{"a":…}}'], {
      shapes: VALUES,
      sizes: EVENT_SIZES,
    }),
    ...bodies({ url, path: '/v1/tokens/revoke', headers: json, family }, ['…', '{"jti":…}', '{"user_id":…}'], {
      shapes: VALUES,
    }),
    ...bodies(
      { url, path: '/v1/usage/corrections', headers: { ...json, 'idempotency-key': 'cpu' }, family },
      ['…', '{"corrects":…}', '{"reason":…,"corrects":"usage_x","units":1}'],
      { shapes: VALUES },
    ),
    ...bodies({ url, path: '/v1/usage/cursors/cpu', method: 'PUT', headers: json, family }, ['{"cursor":…}'], {
      shapes: VALUES,
    }),
  ];
}

/** Every route of the reference auth service that reads input. */
export function authServiceSurfaces({ authUrl: url }: StackAddresses): Surface[] {
  const forms = ['grant_type=password&username=…&password=x', 'grant_type=refresh_token&refresh_token=…', '…'];
  const text = { shapes: TEXTS };
  const tokens = ['token=…', 'token=x&client_id=test&client_secret=…'];
  const legacy: Readonly<Record<string, readonly string[]>> = {
    '/auth/login': ['…', '{"email":…,"password":"x"}', '{"email":"nobody@example.test","password":…}'],
    '/auth/refresh': ['{"refresh_token":…}'],
    '/auth/logout': ['{"refresh_token":…}'],
    '/auth/validate': ['{"token":…}'],
    '/auth/service-token': ['{"service_id":…,"service_secret":"x"}', '{"service_id":"test","service_secret":…}'],
    '/auth/users/user_cpu/plan': ['{"plan":…}'],
  };
  return [
    ...bodies({ url, path: '/oauth/token', headers: FORM_TYPE }, [...forms, 'grant_type=…', 'scope=…'], text),
    ...bodies({ url, path: '/oauth/token' }, ['…', '{"grant_type":…}', '{"audience":…}'], { shapes: VALUES }),
    ...bodies({ url, path: '/oauth/introspect', headers: FORM_TYPE }, tokens, text),
    ...bodies({ url, path: '/oauth/revoke', headers: FORM_TYPE }, tokens, text),
    ...Object.entries(legacy).flatMap(([path, templates]) => {
      return bodies({ url, path, ...(path.endsWith('plan') ? { method: 'PUT' } : {}) }, templates, { shapes: VALUES });
    }),
    ...headers({ url, path: '/oauth/introspect', method: 'POST' }, { authorization: 'Basic ', origin: '' }),
    ...headers({ url, path: '/auth/validate', method: 'POST' }, { authorization: 'Bearer ', 'content-type': '' }),
    ...headers({ url, path: '/auth/users/user_cpu/block', method: 'POST' }, { authorization: 'Bearer ' }),
    ...targets({ url, family: 'auth service, path and query' }, ['/…', '/auth/users/…/block', '/auth/config?…']),
    ...headers({ url, path: '/.well-known/oauth-authorization-server' }, { host: '', origin: '', accept: '' }),
    ...targets({ url, family: 'auth service, path and query' }, ['/.well-known/jwks.json?…'], FEW_TEXTS),
  ];
}
