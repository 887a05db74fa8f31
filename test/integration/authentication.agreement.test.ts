import { describe, expect, it } from '@jest/globals';
import { eventsOf, runToEnd } from '../support/agent-runs.ts';
import { type ClientOptions, openClient, TRANSPORTS } from '../support/clients.ts';
import { base64url, claimsWith, forgeToken, hs256 } from '../support/forged-tokens.ts';
import { openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { refused } from '../support/refusals.ts';
import { stack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { buyTicket, requestTicket } from '../support/tickets.ts';
import { login, mintToken, serviceToken, validToken } from '../support/tokens.ts';

const now = () => Math.floor(Date.now() / 1000);
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

async function post(path: string, body: Record<string, string>, headers: Record<string, string> = {}) {
  const response = await fetch(new URL(path, stack().authUrl), {
    method: 'POST',
    headers,
    body: new URLSearchParams(body),
  });
  return (await response.json()) as Record<string, unknown>;
}

async function validate(token: string) {
  const response = await fetch(new URL('/auth/validate', stack().authUrl), { method: 'POST', headers: bearer(token) });
  return (await response.json()) as Record<string, unknown>;
}

/** Introspects a token (RFC 7662) as a service. */
async function introspect(token: string) {
  return post('/oauth/introspect', { token }, bearer(await serviceToken('usage:read')));
}

describe('the token of a login', () => {
  it('B95 B102 B106 B114 B146 B147 B150 B233 B248 B250 names one user to the auth service, HTTP and every transport', async () => {
    const { access_token: token } = await login('enterprise');
    expect(token.split('.')).toHaveLength(3);
    const validated = await validate(token);
    const watch = await Stopwatch.start();
    expect(await validate(token)).toEqual(validated);
    expect(watch.ms).toBeLessThan(watch.allow(1_000));
    expect(validated).toMatchObject({ valid: true, email: 'enterprise@demo.local', plan: 'enterprise' });
    expect(validated.permissions).toContain('basic');
    expect(await introspect(token)).toMatchObject({ active: true, sub: validated.user_id });
    for (const transport of TRANSPORTS) {
      const client = await openClient({ transport, token });
      expect(await client.welcome()).toMatchObject({ user_id: validated.user_id, plan: 'enterprise' });
      await client.close();
    }
    const client = await openClient({ query: { ticket: await buyTicket(token) } });
    const { user_id, permissions } = await client.welcome();
    expect(user_id).toBe(validated.user_id);
    expect(permissions).toEqual(expect.arrayContaining(validated.permissions as string[]));
  });

  it('B97 B101 B114 exchanged by a service is still that user’s, and the service’s own is good for an hour', async () => {
    const { access_token: token } = await login('free');
    const grant = { grant_type: 'client_credentials', client_id: 'agreement', client_secret: stack().secrets.service };
    const service = await post('/oauth/token', { ...grant, scope: 'token:exchange' });
    expect(service).toMatchObject({ expires_in: 3_600, scope: 'token:exchange' });
    const exchanged = await post(
      '/oauth/token',
      {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: token,
        subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      },
      bearer(String(service.access_token)),
    );
    const [one, other] = [await validate(token), await validate(String(exchanged.access_token))];
    expect(other.user_id).toBe(one.user_id);
    const client = await openClient({ token: String(exchanged.access_token) });
    expect((await client.welcome()).user_id).toBe(one.user_id);
  });
});

describe('a token that is not good', () => {
  it.each<[string, () => string | Promise<string>]>([
    ['forged', () => forgeToken({ payload: claimsWith(), sign: hs256('attacker') })],
    ['expired', () => validToken({ iat: now() - 60, exp: now() - 30 })],
    ['for another audience', () => validToken({ aud: 'billing' })],
    ['of another issuer', () => validToken({ iss: 'https://evil.example.test' })],
    [
      'that was changed',
      async () => {
        const [header, payload = '', signature] = (await login('pro')).access_token.split('.');
        const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
        return `${header}.${base64url(JSON.stringify({ ...claims, plan: 'developer' }))}.${signature}`;
      },
    ],
    ['that is none', () => 'hello'],
  ])('B106 B112 B120 B233 B248 is so to all of them: %s', async (_what, make) => {
    const token = await make();
    expect(await validate(token)).toMatchObject({ valid: false });
    expect(await introspect(token)).toEqual({ active: false });
    expect((await requestTicket({ headers: bearer(token) })).status).toBe(401);
    for (const transport of TRANSPORTS) {
      const { error } = await refused({ transport, token });
      expect(['VALIDATION_FAILED', 'TOKEN_EXPIRED', 'INVALID_FORMAT']).toContain(error.code);
    }
  });
});

describe('the welcome', () => {
  it('B163 has the same form whatever the way in', async () => {
    const ways: ((token: string) => Promise<ClientOptions>)[] = [
      async (token) => ({ token }),
      async (token) => ({ protocols: ['jwt-auth', `jwt.${base64url(token)}`] }),
      async (token) => ({ query: { ticket: await buyTicket(token) } }),
      async (token) => ({ transport: 'socketio', token }),
      async (token) => ({ path: '/ws/mcp', token }),
    ];
    const forms = await Promise.all(
      ways.map(async (way) => {
        const { token } = mintToken();
        return Object.keys(await (await openClient(await way(token))).welcome()).sort();
      }),
    );
    for (const form of forms) expect(form).toEqual(forms[0]);
    expect(forms[0]).toEqual(expect.arrayContaining(['user_id', 'plan', 'permissions', 'auth_method']));
  });
});

describe('ten handshakes at once', () => {
  it('B158 B159 are all answered, each as itself: the good let in, the forged refused', async () => {
    const watch = await Stopwatch.start();
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, async (_, at) => {
        const options = { url: nodeUrl(at % 3), transport: TRANSPORTS[at % 2] ?? 'ws' } as const;
        const { token, userId, claims } = mintToken();
        if (at % 5 !== 4) return (await (await openClient({ ...options, token })).welcome()).user_id === userId;
        const forged = forgeToken({ payload: { ...claims }, sign: hs256('attacker') });
        return (await refused({ ...options, token: forged })).error.code === 'VALIDATION_FAILED';
      }),
    );
    expect(outcomes).toEqual(Array(10).fill(true));
    expect(watch.ms).toBeLessThan(watch.allow(5_000));
  });
});

describe('an administrator', () => {
  it('B255 B257 is a user with a role: what is somebody else’s is neither seen nor ended by it', async () => {
    const watch = await Stopwatch.start();
    const admin = mintToken({ plan: 'enterprise', roles: ['admin'] });
    const user = mintToken({ plan: 'free' });
    const [adminClient, userClient] = await Promise.all([
      openClient({ token: admin.token }),
      openClient({ token: user.token }),
    ]);
    const welcomes = [await adminClient.welcome(), await userClient.welcome()] as const;
    expect(watch.ms).toBeLessThan(watch.allow(3_000));
    expect(welcomes.map(({ user_id }) => user_id)).toEqual([admin.userId, user.userId]);
    expect(new Set(welcomes.map(({ connection_id }) => connection_id)).size).toBe(2);
    const { runId } = await runToEnd(userClient);
    adminClient.send('agent_cancel', { run_id: runId });
    expect((await adminClient.waitFor('error')).fields.code).toBe('RUN_NOT_FOUND');
    adminClient.send('thread_history', { thread_id: welcomes[1].thread_id });
    const history = await adminClient.waitFor(({ type }) => type === 'thread_history' || type === 'error', {
      from: adminClient.mark(),
    });
    expect(JSON.stringify(history.fields)).not.toContain('How is my workload doing?');
    expect(eventsOf(adminClient, runId)).toEqual([]);
    const { redis, keys } = await openLeases();
    expect(await redis.exists(keys.user(admin.userId).log)).toBe(0);
  });
});

describe('the tools of a plan', () => {
  it('B252 B256 B258 are listed without an error, and those of a higher plan are not among them', async () => {
    const lists = await Promise.all(
      (['free', 'pro', 'enterprise'] as const).map(async (plan) => {
        const client = await openClient({ token: validToken({ plan, permissions: [] }) });
        client.send('tools_list');
        const { tools } = (await client.waitFor('tools_list')).fields as { tools: { permission: string }[] };
        expect(client.events.map(({ type }) => type)).not.toContain('error');
        return new Set(tools.map(({ permission }) => permission));
      }),
    );
    const [free, pro, enterprise] = lists;
    expect(free).toEqual(new Set(['basic']));
    expect(pro?.has('analytics')).toBe(true);
    expect(pro?.has('system_management')).toBe(false);
    expect([...(enterprise ?? [])]).toEqual(expect.arrayContaining([...(pro ?? [])]));
  });
});
