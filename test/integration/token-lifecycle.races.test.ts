import { beforeAll, describe, expect, it } from '@jest/globals';
import { Revocations } from '../../src/accounts/revocations.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import { refreshTokens } from '../../workers/refresh-tokens.ts';
import { silentLogger } from '../support/core.ts';
import { SecondDeployment } from '../support/token-lifecycle.ts';

const TOKEN_MS = 60_000;
const LEAD_MS = 15_000;
const GRACE_MS = 180_000;

let deployment: SecondDeployment;

beforeAll(async () => {
  deployment = await SecondDeployment.start({ gateways: 2 });
});

function claimsOf(token: string): { exp: number; sid: string; sub: string } {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
}

/** A worker that stops for `stoppedMs` between claiming a session and the request to the auth service. */
async function refreshWithAStop(userId: string, stoppedMs: number): Promise<void> {
  const { tokenSessions, redis, keys, clock, metrics } = deployment;
  const refreshers = {
    refresh: async (token: string) => {
      await deployment.advance(stoppedMs);
      return deployment.authService.exchange(token);
    },
  };
  const revocations = new Revocations({ redis, keys });
  const rest = { clock, metrics, logger: silentLogger, tracing: NO_TRACING };
  const deps = { tokenSessions, refreshers, revocations, ...rest };
  await refreshTokens([partitionOf(userId)], deps);
}

describe('a worker that was stopped with a session in hand', () => {
  it('B128 does not end the session for a token that another worker has replaced since', async () => {
    const login = await deployment.login();
    const client = await deployment.connect(login.access_token);
    deployment.clock.advance(TOKEN_MS - LEAD_MS + 1_000);
    await refreshWithAStop(claimsOf(login.access_token).sub, TOKEN_MS + GRACE_MS + 30_000);
    await client.waitFor('token_refreshed');
    client.send('ping');
    await client.waitFor('pong');
    expect(client.events.some(({ type }) => type === 'session_terminated')).toBe(false);
    // Refreshes of the session continue.
    const from = client.mark();
    await deployment.advance(TOKEN_MS);
    await client.waitFor('token_refreshed', { from });
    await client.close();
  });
});

describe('a client that brings the token of another session of its user', () => {
  it('B56 moves its own connection alone: the others keep the session they are of, and end with it', async () => {
    const [first, second] = [await deployment.login(), await deployment.login()];
    const moving = await deployment.connect(first.access_token);
    const staying = await deployment.connect(first.access_token, { node: 1 });
    await deployment.advance(5_000);
    const brought = (await deployment.post('/oauth/token', {
      grant_type: 'refresh_token',
      refresh_token: second.refresh_token,
    })) as { access_token: string };
    moving.send('token_refresh', { token: brought.access_token });
    await moving.waitFor('token_refreshed');
    const mark = moving.mark();
    await deployment.advance(TOKEN_MS);
    const kept = await staying.waitFor('token_refreshed');
    expect(claimsOf(String(kept.fields.access_token)).sid).toBe(claimsOf(first.access_token).sid);
    const moved = await moving.waitFor('token_refreshed', { from: mark });
    expect(claimsOf(String(moved.fields.access_token)).sid).toBe(claimsOf(second.access_token).sid);
    const revocations = new Revocations(deployment);
    await revocations.revoke(`sid:${claimsOf(first.access_token).sid}`);
    expect(await staying.closed).toMatchObject({ reason: 'TOKEN_REVOKED' });
    moving.send('ping');
    await moving.waitFor('pong');
    await revocations.revoke(`sid:${claimsOf(second.access_token).sid}`);
    expect(await moving.closed).toMatchObject({ reason: 'TOKEN_REVOKED' });
  });
});
