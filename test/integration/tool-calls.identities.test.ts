import { describe, expect, it } from '@jest/globals';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { type AccessClaims, mintToken, serviceToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';

const codeOf = async (client: TestClient, tool: string, args = {}) => {
  const { type, fields } = await callTool(client, tool, args);
  return type === 'tool_result' ? 'ok' : fields.code;
};
const CONFIGURE = { setting: 'a' };

describe.each(TRANSPORTS)('over %s', (transport) => {
  const connect = async (claims: Partial<AccessClaims>, url = nodeUrl(0)) => {
    const client = await openClient({ transport, token: mintToken(claims).token, url });
    await client.welcome();
    return client;
  };

  it('B253 B255 B256 a role opens what its plan has, and no plan opens what needs a role', async () => {
    const admin = await connect({ plan: 'enterprise', roles: ['admin'] });
    const plain = await connect({ plan: 'enterprise' });
    const poor = await connect({ plan: 'free', roles: ['admin'] });
    // Allowed, but there is no executor.
    expect(await codeOf(admin, 'system_configurator', CONFIGURE)).toBe('TOOL_NOT_AVAILABLE');
    expect(await codeOf(plain, 'system_configurator', CONFIGURE)).toBe('PERMISSION_DENIED');
    expect(await codeOf(poor, 'system_configurator', CONFIGURE)).toBe('PERMISSION_DENIED');
    expect(await codeOf(plain, 'cost_analyzer')).toBe('ok');
  });

  it('B254 a permission of the token opens its tools on any plan, and a flag turned off in it closes them', async () => {
    const granted = await connect({ plan: 'free', permissions: ['monitoring'] });
    expect(await codeOf(granted, 'system_health')).toBe('ok');
    expect(await codeOf(granted, 'analyze_workload')).toBe('PERMISSION_DENIED');
    const off = await connect({ plan: 'enterprise', feature_flags: { advanced_optimization: false } });
    expect(await codeOf(off, 'cost_analyzer')).toBe('PERMISSION_DENIED');
  });

  it('B79 developer tools are refused to all users outside development and staging', async () => {
    const developer = await connect({ plan: 'developer', roles: ['admin', 'developer'], permissions: ['*'] });
    const { fields } = await callTool(developer, 'debug_panel');
    expect(fields).toMatchObject({
      code: 'PERMISSION_DENIED',
      missing_requirements: ['environment:development|staging'],
    });
  });

  it('B227 B257 users share neither quotas, nor idempotency keys, nor what their tools return', async () => {
    const users = await Promise.all([0, 1, 2, 0].map((node) => connect({ plan: 'free' }, nodeUrl(node))));
    const made = await Promise.all(
      users.map((client, at) => callTool(client, 'create_thread', { title: `of ${at}` }, { idempotency_key: 'same' })),
    );
    expect(new Set(made.map(({ fields }) => fields.tool_call_id)).size).toBe(users.length);
    for (const [at, client] of users.entries()) {
      expect(made[at]?.fields).toMatchObject({ repeated: false, rate_limit_status: { used: 1 } });
      const { fields } = await callTool(client, 'get_thread_history');
      expect((fields.result as { threads: { title: string }[] }).threads.map(({ title }) => title)).toEqual([
        `of ${at}`,
      ]);
      const foreign = client.events.filter((event) => {
        const ids = made.filter((_, other) => other !== at).map((one) => one.fields.tool_call_id);
        return ids.includes(event.fields.tool_call_id);
      });
      expect(foreign).toEqual([]);
    }
  });

  it('one user has one quota over every transport and node', async () => {
    const { token } = mintToken({ plan: 'free' });
    const used: unknown[] = [];
    for (const [at, name] of [...TRANSPORTS, ...TRANSPORTS].entries()) {
      const client = await openClient({ transport: name, token, url: nodeUrl(at % 3) });
      await client.welcome();
      const { fields } = await callTool(client, 'list_agents');
      used.push((fields.rate_limit_status as { used: unknown }).used);
      await client.close();
    }
    expect(used).toEqual([1, 2, 3, 4]);
  });
});

describe('a service', () => {
  it('B252 has the free plan: its scopes open no tool', async () => {
    const token = await serviceToken('admin', { clientId: 'caller' });
    const headers = {
      'x-service-id': 'caller',
      'x-user-context': 'service:caller',
      authorization: `Service-Token ${token}`,
    };
    const client = await openClient({ headers });
    await client.welcome();
    expect(await codeOf(client, 'list_agents')).toBe('ok');
    for (const tool of ['analyze_workload', 'system_configurator']) {
      expect(await codeOf(client, tool, tool === 'system_configurator' ? CONFIGURE : {})).toBe('PERMISSION_DENIED');
    }
  });
});

describe('JSON-RPC', () => {
  it('carries a call’s result and its refusal under the id of the request', async () => {
    const client = await openClient({ path: '/ws/mcp', token: mintToken({ plan: 'pro' }).token });
    await client.welcome();
    expect(await client.call('tool_call', { tool: 'list_agents' })).toMatchObject({
      type: 'tool_result',
      rpcId: expect.any(Number),
      fields: { tool: 'list_agents', success: true },
    });
    expect(await client.call('tool_call', { tool: 'cost_analyzer' })).toMatchObject({
      type: 'error',
      rpcId: expect.any(Number),
      fields: { code: 'PERMISSION_DENIED', upgrade_path: 'enterprise' },
    });
  });
});
