import { describe, expect, it } from '@jest/globals';
import type { FastifyInstance } from 'fastify';
import { createApp } from '../../src/http/app.ts';
import {
  challenge,
  ProtectedResource,
  type ProtectedResourceOptions,
  registerProtectedResourceRoutes,
} from '../../src/http/mcp-metadata-routes.ts';
import { acceptZodSchemas } from '../../src/http/route-docs.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { TollgateError } from '../../src/protocol/errors.ts';

const PATH = '/.well-known/oauth-protected-resource/mcp';

function serve(options: Partial<ProtectedResourceOptions>): FastifyInstance {
  const app = createApp({ logger: createLogger('test', 'silent'), trustedProxyHops: 0 });
  acceptZodSchemas(app);
  const resource = new ProtectedResource({ publicUrl: undefined, path: '/mcp', issuers: [], ...options });
  registerProtectedResourceRoutes(app, { resource, allowedOrigins: [], path: '/mcp' });
  return app;
}

describe('the metadata of /mcp (RFC 9728)', () => {
  it('list the issuers that are URLs, and leave out the others', async () => {
    const good = ['https://auth.example.test/realms/a', 'http://auth:8081'];
    const bad = ['tollgate', 'urn:example:issuer', 'localhost:8081', 'https://a.test?x=1', 'https://a.test#b', ''];
    const listed = await serve({ issuers: [...bad, ...good] }).inject(PATH);
    expect(listed.json()).toMatchObject({ authorization_servers: good });
    const none = await serve({ issuers: bad }).inject(PATH);
    expect([none.statusCode, Object.keys(none.json())]).toEqual([
      200,
      ['resource', 'bearer_methods_supported', 'resource_name'],
    ]);
  });

  it('always name a URL as the resource', async () => {
    const app = serve({});
    const { resource } = (await app.inject({ url: PATH, headers: { host: 'gateway.test:8000' } })).json();
    expect(resource).toBe('http://gateway.test:8000/mcp');
    const answer = await app.inject({ url: PATH, headers: { host: 'a:99999' } });
    expect([answer.statusCode, answer.json().error.code]).toEqual([400, 'FORMAT_ERROR']);
    const fixed = serve({ publicUrl: 'https://gateway.example.test/' });
    const named = await fixed.inject({ url: PATH, headers: { host: 'a:99999' } });
    expect(named.json().resource).toBe('https://gateway.example.test/mcp');
  });
});

describe('the challenge of a 401', () => {
  it('names the metadata only if they have a URL', () => {
    const [none, expired] = [new TollgateError('NO_TOKEN'), new TollgateError('TOKEN_EXPIRED')];
    expect(challenge(none, 'https://a.test/m')).toBe('Bearer resource_metadata="https://a.test/m"');
    expect(challenge(none, undefined)).toBe('Bearer');
    expect(challenge(expired, 'https://a.test/m')).toMatch(/^Bearer resource_metadata="https:\/\/a\.test\/m", error=/);
    expect(challenge(expired, undefined)).toMatch(/^Bearer error="invalid_token", error_description="[^"]+"$/);
  });
});
