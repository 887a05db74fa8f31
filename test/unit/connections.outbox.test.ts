import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { type WebSocket, WebSocketServer } from 'ws';
import { ConnectionWriter } from '../../src/connections/connection-writer.ts';
import { flatDialect } from '../../src/protocol/dialects.ts';
import { FrameCache } from '../../src/transports/frame-cache.ts';
import { RawTransport } from '../../src/transports/raw-transport.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { until } from '../support/until.ts';

const FRAME = 'x'.repeat(16 * 1024);

/** A connection writer over a real WebSocket whose client does not read, with several MB buffered in this process. */
async function stalledOutbox() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const webSockets = new WebSocketServer({ server });
  closeAfter('test', () => {
    for (const socket of webSockets.clients) socket.terminate();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const connected = once(webSockets, 'connection');
  const client = openRawSocket({ url, path: '/' }).socket;
  const [socket]: WebSocket[] = await connected;
  if (!socket) throw new Error('no WebSocket was opened');
  client.pause();
  const clock = new ManualClock();
  const transport = new RawTransport(
    { socket, clock, frames: new FrameCache() },
    { path: '/ws', dialect: flatDialect },
  );
  let overflows = 0;
  const onOverflow = () => {
    overflows += 1;
  };
  const outbox = new ConnectionWriter(transport, clock, { disconnected: false, onOverflow });
  // The kernel accepts a part of it first.
  const fill = async () => {
    while (transport.bufferedBytes < 2 * 1024 * 1024) {
      outbox.sendFrame(FRAME);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await fill();
  const seconds = (count: number) => {
    for (let i = 0; i < count; i++) {
      clock.advance(1_000);
      outbox.tick(clock.now());
    }
  };
  return { client, transport, outbox, fill, seconds, overflows: () => overflows };
}

describe('an outbox whose client does not read', () => {
  it('overflows when nothing has left for ten seconds, although the bound on bytes is not reached', async () => {
    const { seconds, overflows } = await stalledOutbox();
    seconds(10);
    expect(overflows()).toBe(0);
    seconds(1);
    expect(overflows()).toBe(1);
  });

  it('is given ten seconds more whenever the client takes some of it, however little', async () => {
    const { client, transport, fill, seconds, overflows } = await stalledOutbox();
    for (let i = 0; i < 3; i++) {
      seconds(9);
      const before = transport.progress;
      // Reads of 64 KiB, until the kernel of the server has room again.
      await until(() => {
        client.once('data', () => client.pause());
        client.resume();
        return transport.progress !== before;
      });
      // The kernel may have accepted all of it.
      await fill();
    }
    seconds(10);
    expect(overflows()).toBe(0);
    seconds(1);
    expect(overflows()).toBe(1);
  });

  it('is given ten seconds more after the clock was set', async () => {
    const { outbox, seconds, overflows } = await stalledOutbox();
    seconds(9);
    outbox.onClockJump();
    seconds(10);
    expect(overflows()).toBe(0);
    seconds(1);
    expect(overflows()).toBe(1);
  });

  it('does not overflow when everything has been taken', async () => {
    const { client, transport, seconds, overflows } = await stalledOutbox();
    client.resume();
    await until(() => transport.bufferedBytes === 0);
    client.pause();
    seconds(30);
    expect(overflows()).toBe(0);
  });
});
