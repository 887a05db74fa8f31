import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { FastifyInstance } from 'fastify';
import { loadConfig } from '../../src/config.ts';
import { createApp } from '../../src/http/app.ts';
import { registerConsoleRoutes } from '../../src/http/console-routes.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';

const ENVIRONMENT = {
  ENVIRONMENT: 'test',
  JWT_SECRET_KEY: `${'k'.repeat(31)}K`,
  SERVICE_SECRET: `${'s'.repeat(31)}S`,
  REDIS_URL: 'redis://localhost',
  AUTH_SERVICE_URL: 'http://tollgate-auth:8081',
  AUTH_PUBLIC_URL: 'https://auth.example.com/base',
};
const ENDPOINTS = {
  authorization: 'https://auth.example.com/base/oauth/authorize',
  token: 'https://tokens.example.com/token',
  revocation: null,
  end_session: 'https://logout.example.com/end',
};
const SCRIPT = `console.log(${JSON.stringify('x'.repeat(4_000))});\n`;

let folder: string;
let outside: string;
const clock = new ManualClock();

beforeAll(() => {
  outside = mkdtempSync(join(tmpdir(), 'tollgate-console-'));
  folder = join(outside, 'dist');
  mkdirSync(join(folder, 'assets'), { recursive: true });
  writeFileSync(join(folder, 'index.html'), '<!doctype html><title>Console</title>');
  writeFileSync(join(folder, 'assets', 'main-8f3a.js'), SCRIPT);
  writeFileSync(join(outside, 'secret.txt'), 'secret');
});
afterAll(() => rmSync(outside, { recursive: true }));

async function withConsole<T>(work: (app: FastifyInstance) => Promise<T>, at = folder): Promise<T> {
  const config = loadConfig(ENVIRONMENT);
  const app = createApp({ logger: silentLogger, trustedProxyHops: 0 });
  registerConsoleRoutes(app, config, { signIn: { endpoints: async () => ENDPOINTS }, clock, folder: at });
  return work(app).finally(() => app.close());
}

describe('the console', () => {
  it('describes its sign-in without a credential', async () => {
    const response = await withConsole((app) => app.inject('/console/config.json'));
    expect(response.json()).toMatchObject({
      issuer: 'http://tollgate-auth:8081',
      client_id: 'tollgate-console',
      scope: 'openid admin:read admin',
      endpoints: ENDPOINTS,
      redirect_path: '/console/callback',
      environment: 'test',
      demo_accounts: true,
    });
  });

  it('may load only its own files, and call only this gateway and its issuer', async () => {
    const { headers } = await withConsole((app) => app.inject('/console/'));
    const policy = String(headers['content-security-policy']);
    expect(policy).toContain("default-src 'none'; script-src 'self'; style-src 'self';");
    expect(policy).toContain("connect-src 'self' https://auth.example.com https://tokens.example.com;");
    expect(policy).toContain("form-action 'self' https://auth.example.com https://logout.example.com;");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toMatch(/unsafe|tollgate-auth/);
    expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' });
  });

  it.each(['/console/', '/console/callback?code=1', '/console/users/user_pro'])('gets its page at %s', async (path) => {
    const { statusCode, headers, body } = await withConsole((app) => app.inject(path));
    expect([statusCode, headers['cache-control'], body]).toEqual([200, 'no-cache', expect.stringContaining('Console')]);
  });

  it('is revalidated by its ETag, while files with a hash in their name are kept', async () => {
    await withConsole(async (app) => {
      const page = await app.inject('/console/');
      const again = await app.inject({ url: '/console/', headers: { 'if-none-match': String(page.headers.etag) } });
      expect([again.statusCode, again.body]).toEqual([304, '']);
      const asset = await app.inject('/console/assets/main-8f3a.js');
      expect(asset.headers['cache-control']).toBe('public, max-age=31536000, immutable');
      expect([asset.headers['content-type'], asset.body]).toEqual(['text/javascript; charset=utf-8', SCRIPT]);
      const headers = { 'accept-encoding': 'br, gzip' };
      const small = await app.inject({ url: '/console/assets/main-8f3a.js', headers });
      expect(small.headers['content-encoding']).toBe('gzip');
      expect(gunzipSync(small.rawPayload).toString()).toBe(SCRIPT);
    });
  });

  it.each([
    '/console/missing.js',
    '/console/../secret.txt',
    '/console/..%2fsecret.txt',
    '/console/assets/..%2f..%2fsecret.txt',
    '/console/%2e%2e/secret.txt',
    '/console/..%5csecret.txt',
    '/console/assets/main-8f3a.js%00.html',
    '/console//etc/hosts.txt',
  ])('has no file at %s', async (path) => {
    const { statusCode, body } = await withConsole((app) => app.inject(path));
    expect([statusCode, JSON.parse(body).error.code]).toEqual([404, 'ENDPOINT_NOT_FOUND']);
    expect(body).not.toContain('secret');
  });

  it('says how to build it where it is not built, and is served as soon as it is', async () => {
    const later = join(outside, 'later');
    await withConsole(async (app) => {
      const missing = await app.inject('/console/');
      expect([missing.statusCode, missing.json().error.message]).toEqual([
        404,
        expect.stringContaining('build:console'),
      ]);
      mkdirSync(later);
      writeFileSync(join(later, 'index.html'), 'built');
      await clock.advance(2_000);
      expect((await app.inject('/console/')).body).toBe('built');
    }, later);
  });
});
