import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Server as SocketIoServer } from 'socket.io';
import { WebSocketServer } from 'ws';
import { openClient, TRANSPORTS, type TransportName } from '../support/clients.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { until } from '../support/until.ts';

const REFUSAL = { code: 'NO_TOKEN', message: 'no credential', retryable: false };

let http: Server;
let url: string;

/** A server that sends a welcome at once, echoes, closes on `bye`, and refuses clients without a token. */
beforeAll(async () => {
  http = createServer();
  const sockets = new WebSocketServer({ noServer: true });
  const io = new SocketIoServer({ serveClient: false });
  io.attach(http, { destroyUpgrade: false });
  io.use((socket, next) => {
    if (socket.handshake.auth.token) return next();
    setTimeout(() => socket.conn.close(), 10);
    return next(Object.assign(new Error('refused'), { data: REFUSAL }));
  });
  io.on('connection', (socket) => {
    socket.emit('connection_established', { connection_id: 'one' });
    socket.onAny((type, fields, ack) => {
      if (type === 'bye') return socket.disconnect(true);
      if (typeof ack === 'function') return ack({ ok: true, fields });
      return socket.emit('echo', fields);
    });
  });
  http.on('upgrade', (request, socket, head) => {
    if (request.url?.startsWith('/socket.io/')) return;
    if (!request.headers.authorization) {
      socket.end('HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnope');
      return;
    }
    sockets.handleUpgrade(request, socket, head, (ws) => {
      ws.on('error', () => {});
      ws.send(JSON.stringify({ type: 'connection_established', payload: { connection_id: 'one' } }));
      ws.on('message', (data) => {
        const { type, payload } = JSON.parse(data.toString());
        if (type === 'bye') ws.close(4001, 'gone');
        else ws.send(JSON.stringify({ type: 'echo', payload }));
      });
    });
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
});
afterAll(() => {
  http.closeAllConnections();
  return new Promise((resolve) => http.close(resolve));
});

describe.each(TRANSPORTS)('a test client over %s', (transport: TransportName) => {
  it('has every event from the first on, with the dialect taken off', async () => {
    const client = await openClient({ transport, url, token: 'x' });
    expect(await client.welcome()).toMatchObject({ connection_id: 'one' });
    client.send('say', { n: 1 });
    client.send('say', { n: 2 });
    await client.waitFor(({ fields }) => fields.n === 2);
    expect(client.events.map(({ type, fields }) => [type, fields.n])).toEqual([
      ['connection_established', undefined],
      ['echo', 1],
      ['echo', 2],
    ]);
  });

  it('says what did arrive when the awaited does not', async () => {
    const client = await openClient({ transport, url, token: 'x' });
    await client.welcome();
    await expect(client.waitFor('agent_completed', { timeoutMs: 30 })).rejects.toThrow(
      /agent_completed did not arrive: waited 30 ms[\s\S]*connection_established/,
    );
  });

  it('does not wait for what a closed connection cannot bring', async () => {
    const client = await openClient({ transport, url, token: 'x' });
    client.send('bye');
    await expect(client.waitFor('echo')).rejects.toThrow('the connection was closed with');
    const closed = await client.closed;
    expect(closed.reason).toBe(transport === 'ws' ? 'gone' : 'io server disconnect');
    if (transport === 'ws') expect(closed.code).toBe(4001);
  });

  it('tells why it was refused', async () => {
    const client = await openClient({ transport, url });
    await client.closed;
    const expected = transport === 'ws' ? { status: 401, body: 'nope' } : { message: 'refused', data: REFUSAL };
    expect(client.refusal).toMatchObject(expected);
    await expect(client.waitFor('echo')).rejects.toThrow('the connection was refused');
  });

  it('reports a closed port', async () => {
    const client = await openClient({ transport, url: 'http://127.0.0.1:1' });
    expect(client.refusal?.message).toBeTruthy();
  });
});

describe('a test client', () => {
  it('resolves a call over Socket.IO with the acknowledgement', async () => {
    const client = await openClient({ transport: 'socketio', url, token: 'x' });
    expect(await client.call('say', { n: 1 })).toEqual({ ok: true, fields: { n: 1 } });
  });
});

describe('a raw socket', () => {
  it('reads the answer and the frames, and the code of a close', async () => {
    const raw = openRawSocket({ url, path: '/ws', headers: { Authorization: 'Bearer x' } });
    expect(await raw.answer).toMatchObject({ status: 101 });
    raw.sendFrame(JSON.stringify({ type: 'bye' }));
    await until(() => raw.closeFrame);
    expect(raw.frames[0]?.payload.toString()).toContain('connection_established');
    expect(raw.closeFrame).toEqual({ code: 4001, reason: 'gone' });
  });

  it('breaks the rules of the protocol on request', async () => {
    const raw = openRawSocket({ url, path: '/ws', headers: { Authorization: 'Bearer x' } });
    await raw.answer;
    raw.sendFrame('{}', { masked: false });
    await until(() => raw.closeFrame);
    expect(raw.closeFrame?.code).toBe(1002);
  });

  it('reads the body of a refusal', async () => {
    const raw = openRawSocket({ url, path: '/ws' });
    expect(await raw.answer).toMatchObject({ status: 401, headers: { connection: 'close' } });
    expect((await raw.ended).toString()).toBe('nope');
  });
});
