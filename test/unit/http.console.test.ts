import { describe, expect, it } from '@jest/globals';
import { loadConfig } from '../../src/config.ts';
import { createApp } from '../../src/http/app.ts';
import { registerConsoleRoutes } from '../../src/http/console-routes.ts';
import { silentLogger } from '../support/core.ts';

const ENVIRONMENT = {
  ENVIRONMENT: 'test',
  JWT_SECRET_KEY: `${'k'.repeat(31)}K`,
  SERVICE_SECRET: `${'s'.repeat(31)}S`,
  REDIS_URL: 'redis://localhost',
  AUTH_SERVICE_URL: 'http://tollgate-auth:8081',
};

async function consoleOf(env: Record<string, string>) {
  const config = loadConfig({ ...ENVIRONMENT, ...env });
  const app = createApp({ logger: silentLogger, trustedProxyHops: 0 });
  registerConsoleRoutes(app, { authServiceUrl: config.AUTH_PUBLIC_URL, environment: config.ENVIRONMENT });
  const settings = (await app.inject('/console/config.json')).json() as { auth_service_url: string };
  const { headers } = await app.inject('/console/');
  await app.close();
  return { settings: settings.auth_service_url, policy: String(headers['content-security-policy']) };
}

describe('the console', () => {
  it('sends the browser to where browsers reach the auth service, and lets its page call no other host', async () => {
    const { settings, policy } = await consoleOf({ AUTH_PUBLIC_URL: 'https://auth.example.com/oauth' });
    expect(settings).toBe('https://auth.example.com/oauth');
    expect(policy).toContain("connect-src 'self' ws: wss: https://auth.example.com;");
    expect(policy).not.toContain('tollgate-auth');
  });

  it('sends it to where the gateway reaches it, when nothing else is said', async () => {
    const { settings, policy } = await consoleOf({});
    expect(settings).toBe('http://tollgate-auth:8081');
    expect(policy).toContain('http://tollgate-auth:8081;');
  });
});
