import { describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { requestLegacy, requestModern } from '../support/mcp.ts';
import { nodeUrl } from '../support/nodes.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

/** The daily allowance of the plan free. */
const ALLOWANCE = 100;
const CALL = { name: 'list_agents', arguments: {} };

describe('the quota of a user', () => {
  const stack = useStack({ gateways: 2, workers: 1, env: { MESSAGE_RATE_PER_MINUTE: '10000' } });

  it('B90 B92 is one over Socket.IO, POST /mcp and /ws/mcp, and so is the bill', async () => {
    const of = stack().addresses;
    const { token, userId } = mintToken({ plan: 'free' }, { stack: of });
    const chat = await openClient({ transport: 'socketio', token, url: nodeUrl(0, of) });
    await chat.welcome();
    for (let at = 0; at < ALLOWANCE / 2; at++) {
      expect((await callTool(chat, 'list_agents')).type).toBe('tool_result');
    }
    for (let at = 0; at < ALLOWANCE / 2; at++) {
      const request = at % 2 ? requestLegacy : requestModern;
      const { status, body } = await request('tools/call', CALL, { token, url: nodeUrl(at % 2, of) });
      expect([status, body.result?.isError]).toEqual([200, undefined]);
    }
    const socket = await openClient({ path: '/ws/mcp', token, url: nodeUrl(1, of) });
    const refused = await socket.call('tools/call', CALL);
    expect(refused).toMatchObject({
      type: 'error',
      fields: { rpc_code: -33030, code: 'QUOTA_EXCEEDED', upgrade_path: 'pro', resets_at: expect.any(String) },
    });
    // An exhausted quota is not a rate limit: over HTTP it is also a result, not a status.
    const { status, body } = await requestModern('tools/call', CALL, { token, url: nodeUrl(0, of) });
    expect([status, body.error.code, body.error.data.retryable]).toEqual([200, -33030, false]);
    await until(async () => (await billedRecords(userId, of)).length === ALLOWANCE, { timeoutMs: 15_000 });
    const transports = (await billedRecords(userId, of)).map(({ transport }) => transport);
    expect(transports).toEqual([...Array(ALLOWANCE / 2).fill('socketio'), ...Array(ALLOWANCE / 2).fill('mcp')]);
  });
});
