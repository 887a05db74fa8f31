import { describe, expect, it } from '@jest/globals';
import { runToEnd } from '../support/agent-runs.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { useStack } from '../support/stack.ts';
import { login } from '../support/tokens.ts';

/** The shortest possible token life; a token is refreshed after a third of it. */
const TOKEN_SECONDS = 5;

const processes = useStack({
  gateways: 2,
  workers: 2,
  env: { ACCESS_TOKEN_SECONDS: String(TOKEN_SECONDS), TOKEN_DEGRADED_TIMEOUT_SECONDS: '60' },
});

describe('with the real processes', () => {
  it.each(TRANSPORTS)(
    'B61 B69 B138 B144 a connection over %s outlives its token several times, and the runs on it do too',
    async (transport) => {
      const { addresses } = processes();
      const { access_token } = await login('pro', addresses);
      const client = await openClient({ transport, url: addresses.gateways[1]?.url, token: access_token });
      const { token_expires_at } = await client.welcome();
      const third = await client.waitFor(
        ({ type, fields }) => type === 'token_refreshed' && fields.refresh_count === 3,
        {
          label: 'a third refresh',
          timeoutMs: 20_000,
        },
      );
      expect(Date.parse(String(third.fields.token_expires_at))).toBeGreaterThan(Date.parse(String(token_expires_at)));
      for (const { events } of await Promise.all([runToEnd(client), runToEnd(client)])) {
        expect(events.at(-1)).toMatchObject({ type: 'agent_completed' });
      }
      expect(client.events.map(({ type }) => type)).not.toContain('token_degraded');
    },
  );

  it('B111 a degraded connection is served, but no paid tool runs for it until the auth service is back', async () => {
    const { addresses, auth } = processes();
    const { access_token } = await login('enterprise', addresses);
    const client = await openClient({ url: addresses.gateways[0]?.url, token: access_token });
    await auth.kill();
    await client.waitFor('token_degraded', { timeoutMs: 25_000 });

    const degraded = await runToEnd(client, { message: 'How is my workload doing, and are my runs over?' });
    const outcome = (events: typeof degraded.events, tool: string) => {
      return events.find(({ type, fields }) => type === 'tool_completed' && fields.tool_name === tool)?.fields;
    };
    expect(outcome(degraded.events, 'analyze_workload')).toMatchObject({
      success: false,
      error: { code: 'AUTH_SERVICE_UNAVAILABLE', retryable: true },
      usage_record_id: null,
    });
    expect(outcome(degraded.events, 'get_agent_status')).toMatchObject({ success: true });

    await auth.start();
    await client.waitFor('token_refreshed', { from: client.mark(), timeoutMs: 40_000 });
    const active = await runToEnd(client, { message: 'How is my workload doing?' });
    expect(outcome(active.events, 'analyze_workload')).toMatchObject({ success: true });
  }, 90_000);
});
