import { describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { requestLegacy, requestModern } from '../support/mcp.ts';
import { nodeUrl } from '../support/nodes.ts';
import { mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';

/** A tool of the plan pro. */
const PAID = 'analyze_workload';
/** Names that a person, a file system or a font takes for the same one. */
const LOOK_ALIKES = [
  'Analyze_Workload',
  'ANALYZE_WORKLOAD',
  'analyze-workload',
  'аnalyze_workload',
  'analyze_workload ',
  ' analyze_workload',
  'analyze_workload\u200b',
  'analyze_wor\u212aload',
  'ａnalyze_workload',
  'builtin:analyze_workload',
  '../analyze_workload',
  '__proto__',
  'constructor',
] as const;

describe('F1 a tool of a higher plan', () => {
  it.each(TRANSPORTS)('is refused over %s by its name, and by every name that resembles it', async (transport) => {
    const client = await openClient({ transport, token: mintToken({ plan: 'free' }).token });
    const { fields } = await callTool(client, PAID);
    expect([fields.code, fields.retryable]).toEqual(['PERMISSION_DENIED', false]);
    for (const name of LOOK_ALIKES) {
      expect([name, (await callTool(client, name)).fields.code]).toEqual([name, 'TOOL_NOT_FOUND']);
    }
  });

  it.each(['modern', 'legacy'] as const)('does not exist over MCP (%s), and neither does a look-alike', async (era) => {
    const { token } = mintToken({ plan: 'free' });
    const request = era === 'modern' ? requestModern : requestLegacy;
    // The helper writes the name into a header of the newer era as it is.
    const names = LOOK_ALIKES.filter((name) => /^[\x21-\x7e]+$/.test(name) || era === 'legacy');
    for (const name of [PAID, ...names]) {
      const { body } = await request('tools/call', { name, arguments: {} }, { token });
      expect([name, body.error?.data?.code]).toEqual([name, 'TOOL_NOT_FOUND']);
    }
  });

  it('is refused over HTTP', async () => {
    const { token } = mintToken({ plan: 'free' });
    const call = async (name: string) => {
      const response = await fetch(new URL(`/v1/tools/${encodeURIComponent(name)}`, nodeUrl(0)), {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ arguments: {} }),
      });
      return [response.status, ((await response.json()) as { error: { code: string } }).error.code];
    };
    expect(await call(PAID)).toEqual([403, 'PERMISSION_DENIED']);
    for (const name of LOOK_ALIKES) expect([name, ...(await call(name))]).toEqual([name, 404, 'TOOL_NOT_FOUND']);
  });
});

describe('an identity in the fields of a message', () => {
  const CLAIMED = {
    user_id: 'admin',
    userId: 'admin',
    sub: 'admin',
    plan: 'enterprise',
    tenant: 'other',
    role: 'admin',
  };

  it.each(TRANSPORTS)('F3 F11 over %s is ignored: the token decides user and plan', async (transport) => {
    const { token, userId } = mintToken({ plan: 'free' });
    const client = await openClient({ transport, token });
    expect((await callTool(client, PAID, {}, CLAIMED)).fields.code).toBe('PERMISSION_DENIED');
    client.send('usage_summary', { ...CLAIMED, request_id: 'r1' });
    const summary = await client.waitFor(({ fields }) => fields.request_id === 'r1');
    expect([summary.type, summary.fields.plan]).toEqual(['usage_summary', 'free']);
    client.send('auth', { ...CLAIMED, token });
    const { fields } = await client.waitFor('auth_success');
    expect(fields.user_id).toBe(userId);
  });

  it.each(TRANSPORTS)('F4 over %s joins no room and no channel: UNKNOWN_MESSAGE_TYPE', async (transport) => {
    const client = await openClient({ transport, token: mintToken().token });
    for (const type of ['join', 'subscribe', 'room', 'psubscribe', 'join_room']) {
      const from = client.events.length;
      client.send(type, { room: 'user:other', channel: '*' });
      const { fields } = await client.waitFor('error', { from });
      expect([type, fields.code]).toEqual([type, 'UNKNOWN_MESSAGE_TYPE']);
    }
  });

  it.each(TRANSPORTS)(
    'F3 over %s reads no thread of another user, and learns not whether there is one',
    async (transport) => {
      const owner = await openClient({ transport, token: mintToken({ plan: 'pro' }).token });
      const { fields: created } = await callTool(owner, 'create_thread', { title: 'Mine' });
      const theirs = String((created.result as { thread_id: string }).thread_id);
      const stranger = await openClient({ transport, token: mintToken({ plan: 'pro' }).token });
      const answers = [];
      for (const [at, thread_id] of [theirs, 'thread_of_nobody'].entries()) {
        stranger.send('thread_history', { thread_id, request_id: `r${at}` });
        const { type, fields } = await stranger.waitFor((event) => event.fields.request_id === `r${at}`);
        answers.push([type, fields.code, fields.messages]);
      }
      expect(answers[0]).toEqual(answers[1]);
    },
  );
});
