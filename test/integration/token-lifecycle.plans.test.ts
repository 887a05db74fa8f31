import { describe, expect, it } from '@jest/globals';
import { startAdmin } from '../support/admin.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { freshUserId, mintToken } from '../support/tokens.ts';

describe.each(TRANSPORTS)('the plan of a connection over %s', (transport) => {
  it('B102 is that of its latest token, as long as no operator has stored another', async () => {
    const claims = { sub: freshUserId(), sid: 'sid_plans' };
    const client = await openClient({ transport, token: mintToken({ ...claims, plan: 'free' }).token });
    expect(await client.welcome()).toMatchObject({ plan: 'free' });
    const upgraded = mintToken({ ...claims, plan: 'enterprise' }, { expiresInSeconds: 900 });
    client.send('token_refresh', { token: upgraded.token });
    const { fields } = await client.waitFor('plan_changed');
    expect(fields).toMatchObject({ plan: 'enterprise', limits: { max_message_rate: 300 } });
    expect(fields.permissions).toContain('system_management');
  });

  it('B242 B252 is the stored one, whatever a newer token says, and the token’s permissions are back with its plan', async () => {
    const admin = await startAdmin();
    const claims = { sub: freshUserId(), sid: 'sid_plans', plan: 'pro', permissions: ['basic', 'reports:read'] };
    const client = await openClient({ transport, token: mintToken(claims).token });
    expect((await client.welcome()).permissions).toContain('reports:read');
    await admin('PUT', `/v1/users/${claims.sub}/plan`, { plan: 'free' });
    const lowered = await client.waitFor('plan_changed');
    expect(lowered.fields).toMatchObject({ plan: 'free', permissions: ['basic'] });

    client.send('token_refresh', { token: mintToken(claims, { expiresInSeconds: 900 }).token });
    await client.waitFor('token_refreshed');
    client.send('tools_list');
    const { fields } = await client.waitFor('tools_list');
    expect((fields.tools as { name: string }[]).map(({ name }) => name)).not.toContain('analyze_workload');

    const from = client.mark();
    await admin('PUT', `/v1/users/${claims.sub}/plan`, { plan: 'pro' });
    const restored = await client.waitFor('plan_changed', { from });
    expect(restored.fields.permissions).toContain('reports:read');
  });
});
