// A real OpenID provider (npm package oidc-provider) in a process of its own. Paths below /test control it:
// token?sub=…&sid=… issues a JWT access token, service the own token of a client, logout?sub=…&sid=… sends a logout
// token, rotate replaces the keys, delay?ms=… and outage?on=… affect all other requests. pair?sub=…&sid=… issues an access
// and a refresh token, refreshes answers which refresh tokens were used and how many grants a reuse has ended, ttl?s=…
// sets the life of later access tokens, and hold?on=… withholds the answers of the token endpoint.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const RESOURCE = 'https://tollgate.example.com';
let logoutUri = 'http://127.0.0.1:1/';
let issuer = '';
let provider;
let delayMs = 0;
let isAway = false;
let ttl = 600;
let isHeld = false;
const used = [];
let revoked = 0;

function create() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 });
  const kid = `key-${randomUUID()}`;
  const getResourceServerInfo = () => ({
    scope: 'chat usage.read',
    audience: RESOURCE,
    accessTokenTTL: ttl,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: 'RS256' } },
  });
  const created = new Provider(issuer, {
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' }] },
    clients: [
      {
        client_id: 'chat-app',
        client_secret: 'chat-app-secret-of-the-test',
        redirect_uris: ['http://127.0.0.1/callback'],
        grant_types: ['authorization_code', 'refresh_token'],
        backchannel_logout_uri: logoutUri,
        backchannel_logout_session_required: true,
      },
      {
        client_id: 'billing-job',
        client_secret: 'billing-job-secret-of-the-test',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    rotateRefreshToken: true,
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    extraTokenClaims: (_ctx, token) =>
      token.kind === 'AccessToken' ? { sid: token.sid ?? token.extra?.sid, groups: ['pro-users'] } : {},
    features: {
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        getResourceServerInfo,
        useGrantedResource: () => true,
      },
    },
    // Its own timeout of 2.5 s is too short for a busy machine.
    fetch: (url, options) =>
      globalThis.fetch(url, { ...options, dispatcher: undefined, signal: AbortSignal.timeout(20_000) }),
  });
  const note = ({ oidc }) => oidc.params?.refresh_token && used.push(oidc.params.refresh_token);
  created.on('grant.success', note);
  created.on('grant.error', note);
  created.on('grant.revoked', () => {
    revoked += 1;
  });
  return created;
}

async function issue(query, withRefreshToken) {
  const client = await provider.Client.find('chat-app');
  const accountId = query.get('sub');
  const sid = query.get('sid') ?? undefined;
  const grant = new provider.Grant({ accountId, clientId: 'chat-app' });
  grant.addResourceScope(RESOURCE, 'chat');
  const common = { accountId, client, grantId: await grant.save(), gty: 'authorization_code', scope: 'chat' };
  const token = new provider.AccessToken({ ...common, extra: { sid } });
  token.resourceServer = new provider.ResourceServer(RESOURCE, {
    scope: 'chat',
    audience: RESOURCE,
    accessTokenTTL: ttl,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: 'RS256' } },
  });
  const access_token = await token.save();
  if (!withRefreshToken) return { access_token };
  return {
    access_token,
    refresh_token: await new provider.RefreshToken({ ...common, resource: RESOURCE, sid }).save(),
  };
}

async function control(path, query) {
  if (path === '/test/delay') delayMs = Number(query.get('ms'));
  if (path === '/test/outage') isAway = query.get('on') === 'true';
  if (path === '/test/rotate') provider = create();
  if (path === '/test/logout-uri') {
    logoutUri = query.get('uri');
    provider = create();
  }
  if (path === '/test/ttl') ttl = Number(query.get('s'));
  if (path === '/test/hold') isHeld = query.get('on') === 'true';
  if (path === '/test/refreshes') return { used, revoked };
  if (path === '/test/token') return issue(query, false);
  if (path === '/test/pair') return issue(query, true);
  if (path === '/test/logout') {
    const client = await provider.Client.find('chat-app');
    await client.backchannelLogout(query.get('sub'), query.get('sid'));
  }
  return {};
}

const server = createServer((request, response) => {
  const url = new URL(request.url, issuer);
  if (url.pathname.startsWith('/test/')) {
    control(url.pathname, url.searchParams).then(
      (answer) => response.setHeader('content-type', 'application/json').end(JSON.stringify(answer)),
      (error) => response.writeHead(500).end(String(error?.stack ?? error)),
    );
    return;
  }
  if (isAway) return request.socket.destroy();
  if (isHeld && url.pathname === '/token') response.end = () => response;
  setTimeout(() => provider.callback()(request, response), delayMs);
});
server.listen(0, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  provider = create();
  process.stdout.write(`${issuer}\n`);
});
