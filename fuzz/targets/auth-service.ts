import formBody from '@fastify/formbody';
import { registerAuthorizationRoutes } from '../../auth-service/authorization-routes.ts';
import { Clients, SERVICE_SCOPES } from '../../auth-service/clients.ts';
import { ConsoleClient } from '../../auth-service/console-client.ts';
import { registerLegacyRoutes } from '../../auth-service/legacy-routes.ts';
import { registerOAuthRoutes } from '../../auth-service/oauth-routes.ts';
import { createApp } from '../../src/http/app.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { require, type Target } from '../lib/target.ts';

/** Of the fuzzer alone; no process uses it. */
const SECRET = 'secret of the fuzz targets';
const REDIRECT = 'http://localhost:8000/console/callback';
const MAX_TOKEN = 8_192;

const bounded = (value: unknown, length: number) =>
  require(typeof value === 'string' && value !== '' && value.length <= length, 'a parameter is bounded text');

const refused = async (token: unknown) => {
  bounded(token, MAX_TOKEN);
  throw new TollgateError('VALIDATION_FAILED');
};
const issued = { access_token: 'a', token_type: 'Bearer', expires_in: 60 };
/** The grants check accounts and tokens; here they check what the routes pass on. */
const grants = {
  async password(name: unknown, password: unknown, client: unknown) {
    bounded(name, 254);
    bounded(password, 1_024);
    require(/^(public|service):/.test(String(client)), 'a client has a key');
    return issued;
  },
  async refresh(token: unknown) {
    bounded(token, MAX_TOKEN);
    return issued;
  },
  async service(id: unknown, scopes: readonly string[]) {
    require(/^[A-Za-z][\w.-]{0,63}$/.test(String(id)), 'a service has a name');
    require(scopes.length > 0 && scopes.every((one) => SERVICE_SCOPES.some((known) => known === one)), 'known scopes');
    return issued;
  },
  async code({ code, redirectUri, verifier }: Record<string, unknown>) {
    bounded(code, 128);
    bounded(redirectUri, 2_048);
    bounded(verifier, 128);
    return issued;
  },
  async exchange(token: unknown) {
    bounded(token, MAX_TOKEN);
    return issued;
  },
  signIn: async () => undefined,
};
const liveTokens = { service: refused, revoke: refused };
const logger = createLogger('fuzz', 'silent');
const client = new ConsoleClient({ clientId: 'tollgate-console', redirectUris: [REDIRECT] });
const deps = {
  ...{ grants, liveTokens, logger, client, console: client, clock: systemClock },
  clients: new Clients({ liveTokens: liveTokens as never }, { serviceSecret: SECRET }),
  introspection: { describe: async () => ({ active: false }), validate: refused },
  sessions: { findByRefreshToken: async () => undefined, end: async () => undefined },
  codes: {},
  idTokens: { hinted: async () => undefined, verify: () => undefined },
} as never;
const app = createApp({ logger, trustedProxyHops: 0 });
app.register(formBody);
registerOAuthRoutes(app, deps, { audience: 'tollgate', passwordLogin: true });
registerLegacyRoutes(app, deps, { passwordLogin: true });
registerAuthorizationRoutes(app, deps, { issuer: 'http://auth.test' });
await app.ready();

const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
const EXCHANGE = 'grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=t';

const oauth: Target = {
  name: 'auth-routes',
  seeds: [
    `/oauth/token\n${basic(`billing:${SECRET}`)}\ngrant_type=client_credentials&scope=usage%3Aread+admin`,
    '/oauth/token\n\ngrant_type=password&username=a%40b.test&password=p&client_id=c',
    '/oauth/token\n\ngrant_type=refresh_token&refresh_token=r',
    `/oauth/token\n${basic(`a%2Eb:${SECRET}`)}\n${EXCHANGE}&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt`,
    `/oauth/token\n\ngrant_type=authorization_code&code=c&redirect_uri=${REDIRECT}&code_verifier=v&client_id=tollgate-console`,
    '/oauth/introspect\nBearer a.b.c\n{"token":"t","client_id":null}',
    `/oauth/revoke\n\ntoken=t&client_id=billing&client_secret=${encodeURIComponent(SECRET)}`,
    '/auth/login\n\n{"email":"a@b.test","password":"p"}',
    '/auth/service-token\n\n{"service_id":"s","service_secret":"x","scope":"admin"}',
    '/auth/logout\nBearer t\n{}',
    `/oauth/authorize\n\nresponse_type=code&client_id=tollgate-console&redirect_uri=${REDIRECT}&code_challenge=x&state=%0d%0a`,
  ],
  words: [
    ...['grant_type', 'client_id', 'client_secret', 'scope', 'token', 'audience', 'resource', 'actor_token', 'state'],
    ...['Basic ', 'Bearer ', 'Service-Token ', '&', '=', '%', '+', '%0d%0a', '%00', REDIRECT, '@evil.test', '[]', '\n'],
    ...['redirect_uri=', 'code_challenge_method=S256', 'prompt=none', 'response_mode=fragment'],
  ],
  maxBytes: 8_192,
  async run(input) {
    const [sent = '', authorization = '', ...rest] = input.toString('latin1').split('\n');
    const body = rest.join('\n');
    const url = `/${sent.replace(/[^\x21-\x7e]|\\/g, '').replace(/^\/+/, '')}`;
    const type = body.startsWith('{') ? 'application/json' : 'application/x-www-form-urlencoded';
    const headers = {
      ...{ host: 'auth', 'content-type': type },
      ...(authorization === '' ? {} : { authorization: authorization.replace(/[^\t\x20-\x7e\x80-\xff]/g, '') }),
    };
    const { statusCode, headers: answered, body: text } = await app.inject({ method: 'POST', url, headers, body });
    require(statusCode < 500, `input is no fault of the service: ${statusCode} ${text}`);
    const { location } = answered;
    if (location !== undefined) {
      require(String(location).startsWith(`${REDIRECT}?`), `the browser goes to the page of the client: ${location}`);
    }
    require(!/node_modules|\/src\/|at \w+ \(/.test(text), 'an answer shows no code');
    if (statusCode < 400 || !text.startsWith('{')) return;
    const { error } = JSON.parse(text) as { error: unknown };
    const code = typeof error === 'object' && error !== null ? Reflect.get(error, 'code') : error;
    require(typeof code === 'string' &&
      code !== 'INTERNAL_ERROR' &&
      code !== 'server_error', `an error has a code: ${text}`);
    require(!text.includes(SECRET), 'an error does not repeat the secret');
  },
};

export const AUTH_SERVICE_TARGETS: readonly Target[] = [oauth];
