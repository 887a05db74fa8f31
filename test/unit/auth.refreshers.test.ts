import type { IncomingMessage, ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, beforeEach, expect, it } from '@jest/globals';
import type { IdentityProvider } from '../../src/auth/providers/identity-provider.ts';
import { Refreshers } from '../../src/auth/token-refresh/refreshers.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { silentLogger } from '../support/core.ts';
import { FakeIssuer } from '../support/fake-issuer.ts';
import { providerOf } from '../support/identity-providers.ts';
import { closeAfter } from '../support/open-resources.ts';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const issuer = new FakeIssuer();
/** Tokens that each party has received. */
let received: { own: string[]; provider: (string | null)[] };

beforeAll(() => issuer.start());
afterAll(() => issuer.close());
beforeEach(() => {
  received = { own: [], provider: [] };
});

function refreshers(changes: Partial<IdentityProvider>, grants: readonly string[] | undefined): Refreshers {
  const metadata = { issuer: issuer.url, token_endpoint: `${issuer.url}/token`, grant_types_supported: grants };
  // Providers with OpenID Connect discovery only have no document at the path of RFC 8414.
  issuer.routes.set('/.well-known/openid-configuration', (_request, response) => {
    response.end(JSON.stringify(metadata));
  });
  issuer.routes.set('/token', (request: IncomingMessage, response: ServerResponse) => {
    void text(request).then((body) => {
      received.provider.push(new URLSearchParams(body).get('subject_token'));
      response.end(JSON.stringify({ access_token: 'next', token_type: 'Bearer', expires_in: 60 }));
    });
  });
  const own = {
    canExchange: async () => true,
    exchange: async (token: string) => {
      received.own.push(token);
      return { accessToken: 'of the auth service', expiresAt: 1 };
    },
  };
  const deps = { clock: systemClock, metrics: new Metrics(), logger: silentLogger, tracing: NO_TRACING, own };
  const client = { id: 'tollgate', secret: 'secret-of-the-test' };
  const created = new Refreshers(deps, [{ ...providerOf({ issuer: issuer.url }), client, ...changes }]);
  closeAfter('test', () => created.close());
  return created;
}

const token = () => issuer.sign({ iss: issuer.url, sub: 'ada' });

it.each<[string, Partial<IdentityProvider>, readonly string[] | undefined, boolean]>([
  ['auto, where the metadata lists the exchange', {}, [EXCHANGE], true],
  ['auto, where the metadata lists other grants', {}, ['refresh_token'], false],
  ['auto, where the metadata lists no grants', {}, undefined, false],
  ['exchange, whatever the metadata lists', { refresh: 'exchange' }, [], true],
  ['client', { refresh: 'client' }, [EXCHANGE], false],
  ['exchange without a client', { refresh: 'exchange', client: undefined }, [EXCHANGE], false],
])('a token is refreshed at its issuer or by its client: %s', async (_what, changes, grants, isExchanged) => {
  const presented = token();
  const issued = await refreshers(changes, grants).refresh(presented);
  expect(issued?.accessToken).toBe(isExchanged ? 'next' : undefined);
  expect(received).toEqual({ own: [], provider: isExchanged ? [presented] : [] });
});

/** A session with a refresh token, and what happened to the token. */
function session() {
  const events: string[] = [];
  const held = {
    take: async () => {
      events.push('taken');
      return 'handed-over';
    },
    restore: async (token: string) => void events.push(`restored: ${token}`),
  };
  return { events, held };
}

it.each<[string, Partial<IdentityProvider>, readonly string[], string | undefined]>([
  ['refresh_token', { refresh: 'refresh_token' }, [EXCHANGE], 'handed-over'],
  ['auto, where the metadata lists the exchange', {}, [EXCHANGE], undefined],
  ['auto, where the metadata does not list the exchange', {}, [], 'handed-over'],
  ['auto, for a public client', { client: { id: 'app', secret: undefined } }, [EXCHANGE], 'handed-over'],
  ['exchange', { refresh: 'exchange' }, [], undefined],
  ['client', { refresh: 'client' }, [], undefined],
])('a refresh token that was handed over is used or ignored: %s', async (_what, changes, grants, expected) => {
  const created = refreshers(changes, grants);
  const bodies: URLSearchParams[] = [];
  issuer.routes.set('/token', (request, response) => {
    void text(request).then((body) => {
      bodies.push(new URLSearchParams(body));
      response.end(JSON.stringify({ access_token: 'next', token_type: 'Bearer', expires_in: 60 }));
    });
  });
  const { events, held } = session();
  const issued = await created.refresh(token(), held);
  expect(events).toEqual(expected ? ['taken'] : []);
  // The provider of this test does not rotate refresh tokens.
  expect(issued?.refreshToken).toBe(expected);
  if (expected) expect(bodies[0]?.get('refresh_token')).toBe(expected);
  const isPublic = changes.client !== undefined;
  if (expected) expect(bodies[0]?.get('client_id')).toBe(isPublic ? 'app' : null);
});

it.each<[string, number, object, boolean]>([
  ['was sent too often', 429, {}, true],
  ['is refused because of the client', 400, { error: 'unauthorized_client' }, true],
  ['is refused for now', 400, { error: 'temporarily_unavailable' }, true],
  ['is refused itself', 400, { error: 'invalid_grant' }, false],
  ['may have been used up', 500, {}, false],
  ['was used up for an answer that cannot be read', 200, {}, false],
])('a refresh token is restored only if the provider has not acted: it %s', async (_what, status, json, isBack) => {
  const created = refreshers({ refresh: 'refresh_token' }, []);
  issuer.routes.set('/token', (_request, response) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(json));
  });
  const { events, held } = session();
  await expect(created.refresh(token(), held)).rejects.toThrow();
  expect(events).toEqual(isBack ? ['taken', 'restored: handed-over'] : ['taken']);
});

it('a refresh token is restored if the provider has no metadata, so that nothing was sent', async () => {
  const created = refreshers({ refresh: 'refresh_token' }, []);
  issuer.routes.set('/.well-known/openid-configuration', (_request, response) => {
    response.writeHead(500).end();
  });
  const { events, held } = session();
  await expect(created.refresh(token(), held)).rejects.toThrow();
  expect(events).toEqual(['taken', 'restored: handed-over']);
});

it('the auth service receives only tokens that no listed provider has issued', async () => {
  const others = ['opaque', issuer.sign({ iss: 'https://other.example.com', sub: 'ada' })];
  const created = refreshers({}, [EXCHANGE]);
  for (const one of others) expect(await created.refresh(one)).toMatchObject({ accessToken: 'of the auth service' });
  expect(received).toEqual({ own: others, provider: [] });
});
