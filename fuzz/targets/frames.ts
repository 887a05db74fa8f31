import type { IncomingMessage } from 'node:http';
import { Duplex } from 'node:stream';
import { systemClock } from '../../src/lib/clock.ts';
import { BoundedWebSocketServer, MAX_FRAME_BYTES } from '../../src/transports/bounded-websockets.ts';
import { require, type Target } from '../lib/target.ts';

/** A socket whose client sends what the target pushes. */
class ClientSocket extends Duplex {
  override _read(): void {}
  override _write(_chunk: Buffer, _encoding: string, done: () => void): void {
    done();
  }
  setTimeout(): this {
    return this;
  }
  setNoDelay(): this {
    return this;
  }
}

const guard = { addressOf: () => '192.0.2.1', refused() {} };
const longTasks = { watch() {} };
const server = new BoundedWebSocketServer({ clock: systemClock, guard, longTasks } as never);
const headers = {
  upgrade: 'websocket',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  'sec-websocket-version': '13',
};
const request = { method: 'GET', url: '/ws', headers, headersDistinct: {} } as unknown as IncomingMessage;

/** Close codes of RFC 6455 section 7.4 that the parser or a bound of the gateway gives. */
const CLOSES = [1002, 1003, 1006, 1007, 1008, 1009];
const TURNS = 4;

function frame(opcode: number, payload: string, isFinal = true): Buffer {
  const data = Buffer.from(payload);
  const masked = Buffer.from([(isFinal ? 0x80 : 0) | opcode, 0x80 | data.length, 0, 0, 0, 0]);
  return Buffer.concat([masked, data]);
}

const frames: Target = {
  name: 'websocket-frames',
  seeds: [
    frame(1, '{"type":"ping"}'),
    Buffer.concat([frame(1, '{"type":', false), frame(9, 'x'), frame(0, '"ping"}')]),
    Buffer.concat([frame(2, 'x'), frame(10, ''), frame(8, '\x03\xe8bye')]),
    Buffer.from([0x81, 0xfe, 0x00, 0x7e, 0, 0, 0, 0]),
    Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]),
  ],
  words: [frame(1, '{}'), frame(9, ''), frame(8, ''), frame(0, 'x')],
  packages: ['ws'],
  isRefusal: () => false,
  async run(input) {
    const socket = new ClientSocket();
    const messages: Buffer[] = [];
    let closedWith: number | undefined;
    server.handleUpgrade(request, socket, Buffer.alloc(0), (ws) => {
      ws.on('message', (data: Buffer) => messages.push(data));
      ws.on('error', () => undefined);
      ws.on('close', (code: number) => {
        closedWith = code;
      });
    });
    // In two reads: a frame may be cut anywhere.
    socket.push(input.subarray(0, input.length >> 1));
    socket.push(input.subarray(input.length >> 1));
    for (let turn = 0; turn < TURNS; turn++) await new Promise((resolve) => setImmediate(resolve));
    require(messages.every(({ length }) => length <= MAX_FRAME_BYTES), 'no message is above the bound');
    socket.destroy();
    await new Promise((resolve) => setImmediate(resolve));
    // A client chooses the code of its own close frame.
    require(closedWith === undefined || CLOSES.includes(closedWith) || closedWith >= 1000, 'a close has a code');
  },
};

export const FRAME_TARGETS: readonly Target[] = [frames];
