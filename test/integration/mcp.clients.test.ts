import { describe, expect, it } from '@jest/globals';
import { legacyClient, MODERN, modernClient } from '../support/mcp.ts';
import { mintToken } from '../support/tokens.ts';

type Listing = { readonly tools: readonly { readonly name: string }[] };
/** The common interface of the SDK's clients. */
interface AnyClient {
  listTools(): Promise<Listing>;
  callTool(call: { name: string; arguments: Record<string, unknown> }): Promise<unknown>;
  ping(): Promise<unknown>;
}

const CLIENTS: readonly [string, (token: string) => Promise<AnyClient>][] = [
  ['the v1 client over HTTP', (token) => legacyClient(token, 'http')],
  ['the v1 client over WebSocket, with a ticket', (token) => legacyClient(token, 'websocket')],
  ['the v2 client over HTTP, which initializes', (token) => modernClient(token, 'legacy')],
  ['the v2 client over HTTP, which discovers', (token) => modernClient(token)],
];

describe.each(CLIENTS)('%s', (_name, connect) => {
  it('sees the tools of its plan in the order of the catalogue, and calls one', async () => {
    const client = await connect(mintToken({ plan: 'pro' }).token);
    const { tools } = await client.listTools();
    const names = tools.map(({ name }) => name);
    expect(names.slice(0, 4)).toEqual(['create_thread', 'get_thread_history', 'list_agents', 'get_agent_status']);
    expect(names).toContain('analyze_workload');
    expect(names).not.toContain('cost_analyzer');
    expect(await client.callTool({ name: 'create_thread', arguments: { title: 'Mine' } })).toMatchObject({
      content: [{ type: 'text', text: expect.stringContaining('"title":"Mine"') }],
      structuredContent: { title: 'Mine' },
      _meta: { 'tollgate/usageRecordId': expect.stringMatching(/^usage_/), 'tollgate/repeated': false },
    });
  });

  it('gets a tool of another plan as nonexistent', async () => {
    const client = await connect(mintToken({ plan: 'free' }).token);
    for (const name of ['cost_analyzer', 'no_such_tool']) {
      await expect(client.callTool({ name, arguments: {} })).rejects.toMatchObject({ code: -32602 });
    }
  });
});

describe('what the SDK clients negotiate', () => {
  it('is 2026-07-28 where the client knows it', async () => {
    const client = await modernClient(mintToken().token);
    expect(client.getNegotiatedProtocolVersion()).toBe(MODERN);
    expect(client.getServerVersion()).toMatchObject({ name: 'tollgate' });
  });

  it.each(['http', 'websocket'] as const)(
    'is an older revision for the v1 client over %s, which can ping',
    async (transport) => {
      const client = await legacyClient(mintToken().token, transport);
      expect(client.getServerCapabilities()).toEqual({ tools: {} });
      await client.ping();
    },
  );
});
