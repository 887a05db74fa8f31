// A real OpenID provider (npm package oidc-provider) in a process of its own. Paths below /test control it:
// token?sub=…&sid=… issues a JWT access token, service the own token of a client, logout?sub=…&sid=… sends a logout
// token, rotate replaces the keys, delay?ms=… and outage?on=… affect all other requests.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const RESOURCE = 'https://tollgate.example.com';
let logoutUri = 'http://127.0.0.1:1/';
let issuer = '';
let provider;
let delayMs = 0;
let isAway = false;

function create() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 });
  const kid = `key-${randomUUID()}`;
  const getResourceServerInfo = () => ({
    scope: 'chat usage.read',
    audience: RESOURCE,
    accessTokenTTL: 600,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: 'RS256' } },
  });
  return new Provider(issuer, {
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' }] },
    clients: [
      {
        client_id: 'chat-app',
        client_secret: 'chat-app-secret-of-the-test',
        redirect_uris: ['http://127.0.0.1/callback'],
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
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    extraTokenClaims: (_ctx, token) =>
      token.kind === 'AccessToken' ? { sid: token.extra?.sid, groups: ['pro-users'] } : {},
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
}

async function control(path, query) {
  if (path === '/test/delay') delayMs = Number(query.get('ms'));
  if (path === '/test/outage') isAway = query.get('on') === 'true';
  if (path === '/test/rotate') provider = create();
  if (path === '/test/logout-uri') {
    logoutUri = query.get('uri');
    provider = create();
  }
  if (path === '/test/token') {
    const client = await provider.Client.find('chat-app');
    const { ResourceServer } = provider;
    const info = {
      scope: 'chat',
      audience: RESOURCE,
      accessTokenTTL: 600,
      accessTokenFormat: 'jwt',
      jwt: { sign: { alg: 'RS256' } },
    };
    const grant = new provider.Grant({ accountId: query.get('sub'), clientId: 'chat-app' });
    grant.addResourceScope(RESOURCE, 'chat');
    const token = new provider.AccessToken({
      accountId: query.get('sub'),
      client,
      grantId: await grant.save(),
      gty: 'authorization_code',
      scope: 'chat',
      extra: { sid: query.get('sid') ?? undefined },
    });
    token.resourceServer = new ResourceServer(RESOURCE, info);
    return { access_token: await token.save() };
  }
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
  setTimeout(() => provider.callback()(request, response), delayMs);
});
server.listen(0, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  provider = create();
  process.stdout.write(`${issuer}\n`);
});
