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

it('the auth service receives only tokens that no listed provider has issued', async () => {
  const others = ['opaque', issuer.sign({ iss: 'https://other.example.com', sub: 'ada' })];
  const created = refreshers({}, [EXCHANGE]);
  for (const one of others) expect(await created.refresh(one)).toMatchObject({ accessToken: 'of the auth service' });
  expect(received).toEqual({ own: others, provider: [] });
});
