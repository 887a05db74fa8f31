import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { openClient, type TestClient } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** A private gateway, because these inputs could crash a careless one. */
let processes: StackProcesses;

beforeAll(async () => {
  processes = await startStack({ workers: 0, env: { AUTH_DEADLINE_SECONDS: '2' } });
});

// A test that ends the gateway must not make the others fail.
beforeEach(async () => {
  for (const gateway of processes.gateways) {
    const answers = fetch(`${gateway.url}/health/live`);
    if ((await answers.catch(() => undefined))?.ok) continue;
    await until(() => !gateway.running, { label: 'the end of the gateway' });
    await gateway.start();
  }
});

async function connect(transport: 'ws' | 'socketio'): Promise<TestClient> {
  const of = processes.addresses;
  const { token } = mintToken({ plan: 'developer' }, { stack: of });
  return openClient({ transport, url: nodeUrl(0, of), token });
}

/** Expects that the gateway runs, has kept its other connections, and answers. */
async function expectUnharmed(client: TestClient): Promise<void> {
  client.send('ping', { timestamp: 'after' });
  await client.waitFor(({ type, fields }) => type === 'pong' && fields.original_timestamp === 'after');
  expect(processes.gateways.map(({ running }) => running)).toEqual([true]);
}

/** A Socket.IO session whose packets the test writes itself, because the client library refuses to. */
async function connectByHand(): Promise<TestClient> {
  const client = await openEngine();
  const { token } = mintToken({ plan: 'developer' }, { stack: processes.addresses });
  client.sendRaw(`40${JSON.stringify({ token })}`);
  await packet(client, '40{');
  return client;
}

/** An engine without a Socket.IO session. */
async function openEngine(): Promise<TestClient> {
  const query = { EIO: '4', transport: 'websocket' };
  const client = await openClient({ path: '/socket.io/', query, url: nodeUrl(0, processes.addresses) });
  await packet(client, '0{');
  return client;
}

function packet(client: TestClient, start: string, from = 0) {
  return client.waitFor(({ fields }) => String(fields.frame).startsWith(start), { from, label: `packet ${start}` });
}

describe('a gateway is not harmed', () => {
  it.each([100, 1_000, 3_000, 10_000, 30_000])(
    'over Socket.IO by an object nested %i deep, and answers',
    async (depth) => {
      const [client, bystander] = [await connectByHand(), await connect('socketio')];
      client.sendRaw(`421["ping",{"pad":${'['.repeat(depth)}${']'.repeat(depth)}}]`);
      await packet(client, '431[');
      client.sendRaw('422["ping",{}]');
      await packet(client, '432[');
      await expectUnharmed(bystander);
    },
  );

  it('over Socket.IO by an event of 5,000 values, and answers JSON_ERROR', async () => {
    const [client, bystander] = [await connectByHand(), await connect('socketio')];
    client.sendRaw(`421["ping",{"pad":[${'[],'.repeat(5_000)}1]}]`);
    expect(JSON.stringify(await packet(client, '431['))).toContain('JSON_ERROR');
    client.sendRaw(`42["ping",{"pad":[${'[],'.repeat(5_000)}1]}]`);
    client.sendRaw('422["ping",{}]');
    await packet(client, '432[');
    await expectUnharmed(bystander);
  });

  it.each([
    ['a packet of no type', '49'],
    ['an event without a name', '42[]'],
    ['an event whose name is no string', '42[{}]'],
    ['an event whose name is a number', '42[7,{"a":1}]'],
    ['an event that is no list', '42{"type":"ping"}'],
    ['an acknowledgement of no message', '437[{}]'],
    ['an acknowledgement with the greatest number', `42${'9'.repeat(400)}["ping",{}]`],
    ['attachments that never come', '451-["ping",{"_placeholder":true,"num":0}]'],
    ['a placeholder for no attachment', '451-["ping",{"_placeholder":true,"num":7}]'],
    ['a million attachments', '451000000-["ping",{}]'],
    ['a second CONNECT', '40{"token":5}'],
    ['another namespace', '40/admin,{"token":"x"}'],
    ['an engine packet of no type', '9'],
    ['half JSON', '42["ping",{'],
  ])('over Socket.IO by %s', async (_what, frame) => {
    const [client, bystander] = [await connectByHand(), await connect('socketio')];
    client.sendRaw(frame);
    client.sendRaw('428["ping",{}]');
    // The packet is answered or ends the session: nothing hangs, and other clients are unaffected.
    await Promise.race([packet(client, '438[').catch(() => undefined), client.closed]);
    await expectUnharmed(bystander);
  });

  it.each([
    ['nested 30000 deep', `40{"token":${'['.repeat(30_000)}${']'.repeat(30_000)}}`],
    ['of nothing', '40'],
    ['of null', '40null'],
    ['of a list', '40["token"]'],
    ['that resumes nowhere', '40{"token":"a.b.c","after":{},"epoch":[]}'],
    ['behind an event', '42["ping",{}]'],
  ])('over Socket.IO by a CONNECT %s, before authentication', async (_what, frame) => {
    const [client, bystander] = [await openEngine(), await connect('socketio')];
    client.sendRaw(frame);
    // Refused in a packet, or cut off.
    await Promise.race([packet(client, '44{').catch(() => undefined), client.closed]);
    expect(JSON.stringify(client.events)).not.toContain('connection_established');
    await expectUnharmed(bystander);
  });

  it('over Socket.IO by events with the names that Node and Socket.IO use themselves', async () => {
    const client = await connect('socketio');
    for (const name of ['error', 'message', 'data', 'close', 'end', 'packet', 'toString', '__proto__', '']) {
      expect([name, await client.call(name, {})]).toEqual([
        name,
        { error: expect.objectContaining({ code: 'UNKNOWN_MESSAGE_TYPE', received_type: name }) },
      ]);
    }
    await expectUnharmed(client);
  });

  it('over Socket.IO by binary data, which counts as what it is', async () => {
    const client = await connect('socketio');
    const reply = await client.call('ping', { pad: Buffer.alloc(20_000) });
    expect(reply).toMatchObject({ error: { code: expect.stringMatching(/^(MESSAGE_TOO_LARGE|INVALID_MESSAGE)$/) } });
    await expectUnharmed(client);
  });

  it('over Socket.IO by a packet above 64 KiB, which ends the connection with 1009', async () => {
    const client = await connect('socketio');
    client.send('ping', { pad: 'x'.repeat(64 * 1024) });
    expect((await client.closed).code).toBe(1009);
    await expectUnharmed(await connect('socketio'));
  });

  it('by fields that name the prototype of objects', async () => {
    const client = await connect('ws');
    client.sendRaw(
      '{"type":"ping","__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}},"timestamp":1}',
    );
    expect((await client.waitFor('pong')).fields).not.toHaveProperty('admin');
    client.sendRaw('{"type":"ping","payload":{"__proto__":{"timestamp":666}}}');
    const second = await client.waitFor('pong', { from: client.mark() });
    expect(second.fields.original_timestamp).toBeNull();
    await expectUnharmed(client);
  });

  it('by text that is no UTF-8, which ends the connection with 1007', async () => {
    const client = await connect('ws');
    const raw = openRawSocket({ url: nodeUrl(0, processes.addresses), path: '/ws' });
    await raw.answer;
    raw.sendFrame(Buffer.from([0x7b, 0xff, 0xfe, 0x7d]));
    expect((await until(() => raw.closeFrame)).code).toBe(1007);
    await expectUnharmed(client);
  });

  it('by frames that are too large: twenty in a row are no client’s', async () => {
    const client = await connect('ws');
    await client.welcome();
    for (let i = 0; i < 60; i++) client.sendRaw(JSON.stringify({ type: 'ping', pad: 'x'.repeat(60_000) }));
    expect(await client.closed).toEqual({ code: 1008, reason: 'MESSAGE_TOO_LARGE' });
    await expectUnharmed(await connect('ws'));
  });

  it('by a second CONNECT on one engine: the connection ends, and was one', async () => {
    const client = await connectByHand();
    const { token } = mintToken({}, { stack: processes.addresses });
    for (let i = 0; i < 20; i++) client.sendRaw(`40${JSON.stringify({ token })}`);
    await client.closed;
    await expectUnharmed(await connect('socketio'));
  });

  it('before authentication by good and bad frames in turn: they are as few as all others', async () => {
    const client = await openClient({ path: '/ws', url: nodeUrl(0, processes.addresses) });
    await client.welcome();
    for (let i = 0; i < 30; i++) {
      client.sendRaw('no JSON');
      client.send('ping');
    }
    expect(await client.closed).toEqual({ code: 1008, reason: 'NO_TOKEN' });
    await expectUnharmed(await connect('ws'));
  });
});
