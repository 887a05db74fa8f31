import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { operator } from '../support/operators.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const admin = () => operator('admin');

/** Lets a fresh user run an agent, and returns the ids. */
async function runOf(message = 'How is my workload doing?') {
  const { token, userId } = mintToken({ plan: 'pro' });
  const client = await openClient({ transport: 'ws', url: nodeUrl(0), token });
  await client.welcome();
  client.send('agent_request', { message, request_id: `req_${randomBytes(6).toString('hex')}` });
  const { fields } = await client.waitFor('agent_accepted');
  await client.waitFor('agent_completed');
  return { client, userId, runId: String(fields.run_id), threadId: String(fields.thread_id) };
}

describe('the users of the console', () => {
  it('are found by their id at once, and by a part of it within the pages of the search', async () => {
    const { userId } = await runOf();
    const send = admin();
    const { body } = await send('GET', `/v1/admin/users?query=${userId}`);
    const email = `${userId}@example.test`;
    expect(body.users[0]).toEqual({ user_id: userId, email, plan: 'pro', blocked: false, connections: 1 });
    const part = userId.slice(6, 16);
    const found: string[] = [];
    for (let cursor: string | null = '', pages = 0; cursor !== null && pages < 200; pages += 1) {
      const from: string = cursor === '' ? '' : `&cursor=${cursor}`;
      const page = await send('GET', `/v1/admin/users?query=${part}${from}`);
      expect(page.status).toBe(200);
      found.push(...page.body.users.map((user: { user_id: string }) => user.user_id));
      cursor = page.body.next_cursor;
    }
    expect(found).toContain(userId);
    expect((await send('GET', '/v1/admin/users?query=*')).status).toBe(400);
  });

  it('have their plan, standing, connections, quota and latest runs on one page', async () => {
    const { userId, runId, client } = await runOf();
    const send = admin();
    const { body } = await send('GET', `/v1/admin/users/${userId}`, undefined, 2);
    expect(body).toMatchObject({ user_id: userId, plan: 'pro', connections_total: 1 });
    expect(body.account).toEqual({ plan: null, blocked: false, revoked_before: null });
    expect(body.runs).toMatchObject([{ run_id: runId, status: 'completed' }]);
    expect(body.event_log.seq).toBeGreaterThanOrEqual(3);
    expect(body.usage).toMatchObject({ plan: 'pro', runs: { in_flight: { runs: 0 } } });
    await send('PUT', `/v1/users/${userId}/plan`, { plan: 'free' });
    await send('POST', `/v1/users/${userId}/block`);
    await client.closed;
    const after = await send('GET', `/v1/admin/users/${userId}`);
    expect(after.body).toMatchObject({ plan: 'free', account: { plan: 'free', blocked: true }, connections_total: 0 });
  });
});

describe('a user who is refused', () => {
  const of = async (userId: string, node = 0) =>
    (await admin()('GET', `/v1/admin/users/${userId}`, undefined, node)).body;

  it('has the message limit with its counter and end as the reason, and the refusals with code and time', async () => {
    const { token, userId } = mintToken({ plan: 'free' });
    const client = await openClient({ transport: 'ws', url: nodeUrl(0), token });
    const { limits } = await client.welcome();
    const limit = Number((limits as { max_message_rate: number }).max_message_rate);
    const before = Date.now();
    for (let sent = 0; sent < limit + 3; sent += 1) client.send('typing', {});
    await until(() => client.events.filter(({ type }) => type === 'error').length === 3);
    const user = await of(userId, 1);
    const counted = user.limits.find(({ name }: { name: string }) => name === 'messages_per_minute');
    expect(counted).toMatchObject({ limit, reached: true, code: 'RATE_LIMITED' });
    expect(counted.used).toBeGreaterThan(limit);
    const [reason] = user.refused;
    expect(reason).toMatchObject({ code: 'RATE_LIMITED', all: true, until: counted.ends_at });
    expect(reason.because).toContain(`the ${limit} messages that the plan allows per minute`);
    expect(Date.parse(reason.until) - before).toBeLessThanOrEqual(61_000);
    const [refusal] = await until(
      async () => {
        const { refusals } = await of(userId, 2);
        return refusals.length > 0 && refusals;
      },
      { timeoutMs: 10_000 },
    );
    expect(refusal).toMatchObject({ code: 'RATE_LIMITED', count: 3 });
    expect(Date.parse(refusal.at)).toBeGreaterThanOrEqual(before - 1_000);
    const { body } = await admin()('GET', '/v1/admin/refused-users?code=RATE_LIMITED&limit=200');
    expect(body.users).toContainEqual(expect.objectContaining({ user_id: userId, count: 3 }));
  }, 20_000);

  it('has refused calls of a run and evicted connections among the refusals, from workers and gateways', async () => {
    const { token, userId } = mintToken({ plan: 'free' });
    const client = await openClient({ transport: 'ws', url: nodeUrl(0), token });
    await client.welcome();
    client.send('agent_request', { message: 'How is my workload doing?', request_id: 'refused', agent: 'usage_agent' });
    await client.waitFor('agent_completed');
    for (let opened = 0; opened < 3; opened += 1) await openClient({ url: nodeUrl(1), token });
    await client.closed;
    const { refusals, limits } = await until(
      async () => {
        const user = await of(userId);
        return user.refusals.length >= 2 && user;
      },
      { timeoutMs: 10_000 },
    );
    const codes = refusals.map((one: { code: string; count: number }) => `${one.code} ${one.count}`);
    expect(codes.toSorted()).toEqual(['CONNECTION_LIMIT_EXCEEDED 1', 'PERMISSION_DENIED 1']);
    const cap = limits.find(({ name }: { name: string }) => name === 'connections');
    expect(cap).toMatchObject({ used: 3, limit: 3, reached: true });
  }, 20_000);

  it('has an HTTP body that is no JSON as FORMAT_ERROR, which says what to send', async () => {
    const { token, userId } = mintToken({ plan: 'free' });
    const send = (type: string, body: string) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': type };
      return fetch(`${nodeUrl(0)}/v1/runs`, { method: 'POST', headers, body });
    };
    const answers = [await send('application/x-www-form-urlencoded', '{}'), await send('application/json', '{')];
    const errors = await Promise.all(answers.map(async (answer) => ((await answer.json()) as { error: object }).error));
    expect(errors).toMatchObject([
      { code: 'FORMAT_ERROR', message: expect.stringContaining('Content-Type: application/json') },
      { code: 'FORMAT_ERROR', message: expect.stringContaining('not valid JSON') },
    ]);
    const { refusals } = await until(
      async () => {
        const user = await of(userId);
        return user.refusals.length > 0 && user;
      },
      { timeoutMs: 10_000 },
    );
    expect(refusals).toMatchObject([{ code: 'FORMAT_ERROR', count: 2 }]);
  }, 20_000);

  it('has every limit with its counter, and the block as the first reason', async () => {
    const { userId, client } = await runOf();
    const send = admin();
    const { limits, refused } = await of(userId);
    expect(refused).toEqual([]);
    const used = Object.fromEntries(limits.map((one: { name: string; used: number }) => [one.name, one.used]));
    expect(used).toMatchObject({ connections: 1, runs_in_flight: 0, runs_per_hour: 1, tool_calls_in_flight: 0 });
    expect(used).toHaveProperty('analyze_workload_per_day');
    await send('POST', `/v1/users/${userId}/block`);
    await client.closed;
    const blocked = await of(userId);
    expect(blocked.refused[0]).toMatchObject({ code: 'USER_BLOCKED', until: null, all: true });
    const late = await openClient({ transport: 'ws', url: nodeUrl(1), token: mintToken({ sub: userId }).token });
    await late.closed;
    await until(
      async () => {
        const { refusals } = await of(userId);
        return refusals.some(({ code }: { code: string }) => code === 'USER_BLOCKED');
      },
      { timeoutMs: 10_000 },
    );
  }, 20_000);
});

describe('the runs of the console', () => {
  it('are listed per user with a cursor, by agent and status', async () => {
    const { userId, client } = await runOf('first');
    client.send('agent_request', { message: '<img src=x onerror=alert(1)>\u202e', request_id: 'second' });
    await until(async () => {
      const { body } = await admin()('GET', `/v1/admin/runs?user_id=${userId}&status=completed`);
      return body.runs.length === 2;
    });
    const send = admin();
    const first = await send('GET', `/v1/admin/runs?user_id=${userId}&limit=1`);
    expect(first.body.runs[0].message).toBe('<img src=x onerror=alert(1)>\u202e');
    const second = await send('GET', `/v1/admin/runs?user_id=${userId}&limit=1&cursor=${first.body.next_cursor}`);
    expect(second.body.runs[0].message).toBe('first');
    expect((await send('GET', `/v1/admin/runs?user_id=${userId}&agent=none`)).body.runs).toEqual([]);
    const all = await send('GET', '/v1/admin/runs?limit=200');
    expect(all.status).toBe(200);
    for (const { ended_at, status } of all.body.runs) {
      if (ended_at !== null) expect(['failed', 'cancelled']).toContain(status);
    }
  });

  it('have a timeline with every event of the run, and of no other run', async () => {
    const { userId, runId } = await runOf();
    const { body } = await admin()('GET', `/v1/admin/users/${userId}/runs/${runId}`, undefined, 1);
    expect(body).toMatchObject({ complete: true, run: { run_id: runId, status: 'completed', reason: null } });
    expect(body.run.final_response).toEqual(expect.any(String));
    const types = body.events.map(({ type }: { type: string }) => type);
    expect([types[0], types.at(-1)]).toEqual(['agent_started', 'agent_completed']);
    for (const { fields } of body.events) expect(fields.run_id).toBe(runId);
    const other = await admin()('GET', `/v1/admin/users/someone_else/runs/${runId}`);
    expect([other.status, other.body.error.code]).toEqual([404, 'RUN_NOT_FOUND']);
  });

  it('are retried once per run, with the same message and thread', async () => {
    const { userId, runId, threadId } = await runOf('again, please');
    const send = admin();
    const path = `/v1/admin/users/${userId}/runs/${runId}/retry`;
    const { status, body } = await send('POST', path);
    expect([status, body.retry_of, body.thread_id]).toEqual([202, runId, threadId]);
    expect((await send('POST', path, undefined, 1)).body.run_id).toBe(body.run_id);
    const retried = await until(async () => {
      const page = await send('GET', `/v1/admin/users/${userId}/runs/${body.run_id}`);
      return page.body.run?.status === 'completed' && page.body.run;
    });
    expect(retried.message).toBe('again, please');
  });

  it('are cancelled on request, if they have not ended', async () => {
    const { userId, runId } = await runOf();
    const send = admin();
    expect((await send('POST', `/v1/admin/users/${userId}/runs/${runId}/cancel`)).status).toBe(202);
    const missing = await send('POST', `/v1/admin/users/${userId}/runs/run_none/cancel`);
    expect([missing.status, missing.body.error.code]).toEqual([404, 'RUN_NOT_FOUND']);
  });
});

describe('queues, catalogue and settings', () => {
  it('show the run queue and the maintenance queue', async () => {
    const { body } = await admin()('GET', '/v1/admin/queues');
    expect(body.queues.map(({ name }: { name: string }) => name)).toEqual(['agent-runs', 'maintenance']);
    const missing = await admin()('POST', '/v1/admin/queues/maintenance/jobs/none/retry');
    expect([missing.status, missing.body.error.code]).toEqual([404, 'RECORD_NOT_FOUND']);
  });

  it('show what each plan allows, and that a reload would change nothing', async () => {
    const { body } = await operator('admin:read')('GET', '/v1/admin/catalogue');
    expect(body.matrix.plans).toEqual(['free', 'pro', 'enterprise', 'developer']);
    const allowed = (tool: string) => body.matrix.tools.find((row: { tool: string }) => row.tool === tool).allowed;
    expect(allowed('create_thread')).toMatchObject({ free: true, pro: true });
    expect(allowed('analyze_workload')).toMatchObject({ free: false, pro: true });
    const diff = await operator('admin:read')('GET', '/v1/admin/catalogue/diff');
    expect(diff.body).toMatchObject({ valid: true, changes: [], next_version: body.version });
  });

  it('show the configuration to viewers, and test connections for administrators', async () => {
    const { body } = await operator('admin:read')('GET', '/v1/admin/settings');
    expect(body.settings.find(({ name }: { name: string }) => name === 'ENVIRONMENT').value).toBe('test');
    expect(body.endpoints.map(({ path }: { path: string }) => path)).toContain('/ws/secure');
    expect((await operator('admin:read')('POST', '/v1/admin/settings/test')).status).toBe(403);
    const { body: tested } = await admin()('POST', '/v1/admin/settings/test');
    for (const name of ['redis', 'auth_service', 'identity_keys', 'console_sign_in']) {
      expect(tested.checks).toContainEqual(expect.objectContaining({ name, ok: true }));
    }
  });
});
