import { describe, expect, it } from '@jest/globals';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { validToken } from '../support/tokens.ts';

/** Invalid frames, with the code of the reply to each. */
const BAD_FRAMES: readonly (readonly [string, string, string])[] = [
  ['text', 'plain text', 'JSON_ERROR'],
  ['half JSON', '{"type": "ping"', 'JSON_ERROR'],
  ['null', 'null', 'INVALID_MESSAGE'],
  ['a type of null', '{"type": null}', 'INVALID_MESSAGE'],
  ['an empty type', '{"type": ""}', 'INVALID_MESSAGE'],
  ['an array', '["ping"]', 'INVALID_MESSAGE'],
  ['20 KB', JSON.stringify({ type: 'ping', data: 'x'.repeat(20_000) }), 'MESSAGE_TOO_LARGE'],
];

/** Expects that the connection is open and answers. */
async function stillAnswers(client: TestClient): Promise<void> {
  const from = client.mark();
  client.send('ping', { timestamp: 'still there' });
  await client.waitFor(({ type }) => type === 'pong' || type === 'result', { from, label: 'pong' });
}

/** Returns a ping of exactly this many bytes. */
function pingOf(bytes: number): string {
  const empty = JSON.stringify({ type: 'ping', pad: '' });
  return JSON.stringify({ type: 'ping', pad: 'x'.repeat(bytes - empty.length) });
}

describe('a ping', () => {
  it.each([1_700_000_000.123, '2026-01-02T03:04:05Z', 0])(
    'B7 B13 on /ws is answered by a pong with its timestamp %j as it was sent',
    async (timestamp) => {
      const client = await openClient({ path: '/ws' });
      client.send('ping', { timestamp });
      const { fields } = await client.waitFor('pong');
      expect(fields).toEqual({
        original_timestamp: timestamp,
        server_time: expect.stringMatching(/Z$/),
        timestamp: expect.stringMatching(/Z$/),
      });
      expect(Math.abs(Date.parse(String(fields.server_time)) - Date.now())).toBeLessThan(5_000);
    },
  );

  it('B8 on /ws/mcp is answered by a JSON-RPC result, after the welcome', async () => {
    const client = await openClient({ path: '/ws/mcp', token: validToken() });
    expect(await client.call('ping', { timestamp: 7 })).toMatchObject({
      type: 'result',
      rpcId: 1,
      fields: { pong: true, original_timestamp: 7 },
    });
    expect(client.events.map(({ type }) => type)).toEqual(['connection_established', 'result']);
  });

  it('over Socket.IO is answered through its acknowledgement, or by an event without one', async () => {
    const client = await openClient({ transport: 'socketio', token: validToken() });
    expect(await client.call('ping', { timestamp: 7 })).toMatchObject({ ok: true, original_timestamp: 7 });
    client.send('ping', { timestamp: 8 });
    expect((await client.waitFor('pong')).fields.original_timestamp).toBe(8);
    expect(client.events.filter(({ type }) => type === 'pong')).toHaveLength(1);
  });

  it.each(TRANSPORTS)('B193 over %s of a user who came with a token gets its answer', async (transport) => {
    const client = await openClient({ transport, token: validToken() });
    await stillAnswers(client);
    client.send('heartbeat');
    expect((await client.waitFor('heartbeat_ack')).fields.connection_id).toBe((await client.welcome()).connection_id);
  });
});

describe('a bad frame', () => {
  it.each(BAD_FRAMES)(
    'B9 B10 B29 of %s on /ws is answered with its code on top, and the connection stays',
    async (_what, frame, code) => {
      const client = await openClient({ path: '/ws' });
      client.sendRaw(frame);
      const { fields } = await client.waitFor('error');
      expect(fields).toMatchObject({
        code,
        message: expect.any(String),
        retryable: false,
        timestamp: expect.any(String),
      });
      await stillAnswers(client);
    },
  );

  it('B29 of any kind, seven in a row on /ws, leaves the connection open: one answer each, in order', async () => {
    const client = await openClient({ path: '/ws' });
    for (const [, frame] of BAD_FRAMES) client.sendRaw(frame);
    await stillAnswers(client);
    const codes = client.events.filter(({ type }) => type === 'error').map(({ fields }) => fields.code);
    expect(codes).toEqual(BAD_FRAMES.map(([, , code]) => code));
  });

  it('is answered also when it is binary', async () => {
    const client = await openClient({ path: '/ws' });
    client.sendRaw(Buffer.from('{"type":"ping"}'));
    expect((await client.waitFor('error')).fields.code).toBe('INVALID_MESSAGE');
    await stillAnswers(client);
  });

  it.each([
    ['/ws', 'before'],
    ['/ws', 'after'],
    ['/ws/secure', 'after'],
    ['/ws/mcp', 'after'],
  ])(
    'ends the connection on %s, %s authentication, with 1008 when it is the twentieth in a row',
    async (path, when) => {
      const client = await openClient({ path, ...(when === 'after' ? { token: validToken() } : {}) });
      await client.welcome();
      for (let i = 0; i < 25; i++) client.sendRaw('no JSON');
      expect(await client.closed).toEqual({ code: 1008, reason: 'JSON_ERROR' });
      const answers = client.events.filter(({ type }) => type === 'error').map(({ fields }) => fields.code);
      expect(answers).toEqual(Array(20).fill('JSON_ERROR'));
    },
  );

  it('does not count after a good one', async () => {
    const client = await openClient({ path: '/ws', token: validToken() });
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 19; i++) client.sendRaw('no JSON');
      await stillAnswers(client);
    }
  });
});

describe('a message of another kind', () => {
  it.each(['user_message', 'agent_request', 'resume', 'threads_list', 'nothing_we_know'])(
    'B11 before authentication, %s, returns what this endpoint is and how to authenticate',
    async (type) => {
      const client = await openClient({ path: '/ws' });
      client.send(type, { message: 'hello' });
      const { fields } = await client.waitFor('info');
      expect(fields).toEqual({
        message: expect.stringContaining('basic WebSocket endpoint'),
        received_type: type,
        timestamp: expect.any(String),
      });
      expect(fields.message).toContain('"auth"');
    },
  );

  it('before authentication is read fifty times, then the connection ends with NO_TOKEN', async () => {
    const client = await openClient({ path: '/ws' });
    for (let i = 0; i < 51; i++) client.send('ping', { timestamp: i });
    expect(await client.closed).toEqual({ code: 1008, reason: 'NO_TOKEN' });
    expect(client.events.filter(({ type }) => type === 'pong')).toHaveLength(50);
    expect(client.events.at(-1)?.fields.code).toBe('NO_TOKEN');
  });

  it.each(TRANSPORTS)('over %s of an unknown type is UNKNOWN_MESSAGE_TYPE, naming it', async (transport) => {
    const client = await openClient({ transport, token: validToken() });
    client.send('make_coffee', { request_id: 'req_7' });
    expect((await client.waitFor('error')).fields).toMatchObject({
      code: 'UNKNOWN_MESSAGE_TYPE',
      received_type: 'make_coffee',
      request_id: 'req_7',
      retryable: false,
    });
    await stillAnswers(client);
  });

  it.each(TRANSPORTS)('over %s with a field of the wrong form is FORMAT_ERROR, naming the field', async (transport) => {
    const client = await openClient({ transport, token: validToken() });
    client.send('agent_request', { message: 5 });
    expect((await client.waitFor('error')).fields).toMatchObject({ code: 'FORMAT_ERROR', field: 'message' });
    await stillAnswers(client);
  });

  it.each(['{"type":"ping"}', '{"type":"ping","payload":{}}', '"ping"'])(
    'B23 on /ws/mcp, %s, is -32600 with data that names JSON-RPC format and /ws',
    async (frame) => {
      const client = await openClient({ path: '/ws/mcp', token: validToken() });
      client.sendRaw(frame);
      const { fields, rpcId } = await client.waitFor('error');
      expect([fields.rpc_code, fields.code, rpcId]).toEqual([-32600, 'INVALID_MESSAGE', undefined]);
      const { rpc_code: _code, message: _message, ...data } = fields;
      expect(JSON.stringify(data)).toMatch(/JSON-RPC format.*\/ws/);
      await stillAnswers(client);
    },
  );

  it('over Socket.IO whose data is no object is INVALID_MESSAGE, through its acknowledgement', async () => {
    const client = await openClient({ transport: 'socketio', token: validToken() });
    for (const fields of [['a'], 'text', 5]) {
      const reply = await client.call('ping', fields as unknown as Record<string, unknown>);
      expect(reply).toMatchObject({ error: { code: 'INVALID_MESSAGE' } });
    }
    await stillAnswers(client);
  });
});

describe('the size of a message', () => {
  it('B17 of 10 KB on /ws/secure is answered with MESSAGE_TOO_LARGE, and the connection stays', async () => {
    const client = await openClient({ token: validToken() });
    client.sendRaw(pingOf(10_240));
    expect((await client.waitFor('error')).fields).toMatchObject({
      code: 'MESSAGE_TOO_LARGE',
      max_message_size: 8_192,
      size: 10_240,
      recoverable: true,
    });
    await stillAnswers(client);
  });

  it('B17 over Socket.IO of 10 KB is answered the same way', async () => {
    const client = await openClient({ transport: 'socketio', token: validToken() });
    expect(await client.call('ping', { pad: 'x'.repeat(10_240) })).toMatchObject({
      error: { code: 'MESSAGE_TOO_LARGE', max_message_size: 8_192 },
    });
    await stillAnswers(client);
  });

  it.each(['polling', 'websocket'] as const)(
    'B17 over Socket.IO holds for each of several that come at once by %s',
    async (by) => {
      const client = await openClient({ transport: 'socketio', token: validToken(), socketIoTransports: [by] });
      await client.welcome();
      const pads = [10_240, 10, 12_000, 9_000].map((length) => ({ pad: 'x'.repeat(length) }));
      const replies = await Promise.all(pads.map((fields) => client.call('ping', fields)));
      expect(replies.map((reply) => ('error' in (reply as object) ? 'refused' : 'answered'))).toEqual([
        'refused',
        'answered',
        'refused',
        'refused',
      ]);
    },
  );

  it('may be the limit, and not one byte more, counted in bytes and not in characters', async () => {
    const client = await openClient({ path: '/ws' });
    client.sendRaw(pingOf(8_192));
    await client.waitFor('pong');
    client.sendRaw(pingOf(8_193));
    expect((await client.waitFor('error')).fields.size).toBe(8_193);
    const from = client.mark();
    client.sendRaw(JSON.stringify({ type: 'ping', pad: '€'.repeat(2_800) }));
    expect((await client.waitFor('error', { from })).fields.code).toBe('MESSAGE_TOO_LARGE');
  });

  it.each(['/ws', '/ws/secure', '/ws/mcp'])('above 64 KiB on %s ends the connection with 1009', async (path) => {
    const client = await openClient({ path, token: validToken() });
    await client.welcome();
    client.sendRaw(pingOf(64 * 1024 + 1));
    expect((await client.closed).code).toBe(1009);
  });

  it('may be 64 KiB on /ws/mcp', async () => {
    const client = await openClient({ path: '/ws/mcp', token: validToken() });
    const frame = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping', params: { pad: '' } });
    client.sendRaw(frame.replace('""', JSON.stringify('x'.repeat(64 * 1024 - frame.length))));
    expect(await client.waitFor(({ rpcId }) => rpcId === 1)).toMatchObject({ fields: { pong: true } });
  });
});
