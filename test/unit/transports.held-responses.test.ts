import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { HeldResponses } from '../../src/transports/held-responses.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { until } from '../support/until.ts';

/** Returns both ends of a connection, and the chunks that the client has read. */
async function connected(): Promise<{ socket: Socket; client: Socket; chunks: string[] }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const client = connect(address.port, '127.0.0.1');
  const [[socket]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [[Socket], unknown];
  server.close();
  const chunks: string[] = [];
  client.on('data', (data) => chunks.push(String(data)));
  return { socket, client, chunks };
}

describe('a held response', () => {
  test('leaves in one write with what follows it', async () => {
    const responses = new HeldResponses({ clock: new ManualClock() });
    const { socket, client, chunks } = await connected();
    responses.hold(socket);
    socket.write('response ');
    await new Promise((resolve) => setImmediate(resolve));
    expect(socket.bytesWritten - socket.writableLength).toBe(0);
    socket.write('frame');
    responses.release(socket);
    await until(() => chunks.length > 0);
    expect(chunks).toEqual(['response frame']);
    client.destroy();
  });

  test('leaves alone after 20 ms, and so does each of many', async () => {
    const clock = new ManualClock();
    const responses = new HeldResponses({ clock });
    const connections = await Promise.all(Array.from({ length: 5 }, connected));
    for (const { socket } of connections) {
      responses.hold(socket);
      socket.write('response');
    }
    clock.advance(20);
    await until(() => connections.every(({ chunks }) => chunks.join('') === 'response'));
    // A later one starts the timer again.
    const later = await connected();
    responses.hold(later.socket);
    later.socket.write('later');
    clock.advance(20);
    await until(() => later.chunks.join('') === 'later');
    for (const { client } of [...connections, later]) client.destroy();
  });

  test('is released once: later writes of others that are held stay held', async () => {
    const responses = new HeldResponses({ clock: new ManualClock() });
    const { socket, client, chunks } = await connected();
    responses.hold(socket);
    responses.release(socket);
    socket.cork();
    responses.release(socket);
    socket.write('corked by another');
    expect(socket.writableCorked).toBe(1);
    socket.uncork();
    await until(() => chunks.length > 0);
    client.destroy();
  });

  test('of a socket that closed meanwhile disturbs nothing', async () => {
    const clock = new ManualClock();
    const responses = new HeldResponses({ clock });
    const { socket } = await connected();
    responses.hold(socket);
    socket.destroy();
    await until(() => socket.closed);
    clock.advance(20);
    responses.release(socket);
    expect(socket.destroyed).toBe(true);
  });
});
