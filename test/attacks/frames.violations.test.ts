import { describe, expect, it } from '@jest/globals';
import { nodeUrl } from '../support/nodes.ts';
import { type FrameOptions, OPCODE, openRawSocket, type RawSocket } from '../support/raw-socket.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const ENGINE = '/socket.io/?EIO=4&transport=websocket';
const PATHS = ['/ws', '/ws/secure', '/ws/mcp', ENGINE];

async function open(path: string, headers: Readonly<Record<string, string>> = {}): Promise<RawSocket> {
  const authorization = path === ENGINE ? {} : { Authorization: `Bearer ${mintToken().token}` };
  const raw = openRawSocket({ url: nodeUrl(0), path, headers: { ...authorization, ...headers } });
  await until(() => raw.frames.length > 0);
  return raw;
}

const VIOLATIONS: readonly (readonly [what: string, payload: string | Buffer, options: FrameOptions, code: number])[] =
  [
    ['an unmasked frame', '{}', { masked: false }, 1002],
    ['the reserved opcode 3', '{}', { opcode: 0x3 }, 1002],
    ['the reserved opcode 11', '', { opcode: 0xb }, 1002],
    ['the bit of compression, which was not negotiated', '{}', { reserved: 4 }, 1002],
    ['another reserved bit', '{}', { reserved: 1 }, 1002],
    ['a ping of 126 bytes', 'x'.repeat(126), { opcode: OPCODE.ping }, 1002],
    ['a ping in fragments', 'x', { opcode: OPCODE.ping, fin: false }, 1002],
    ['a continuation of nothing', 'x', { opcode: OPCODE.continuation }, 1002],
    ['a close of one byte', 'x', { opcode: OPCODE.close }, 1002],
    ['a close with the code 1005', Buffer.from([0x03, 0xed]), { opcode: OPCODE.close }, 1002],
    ['a close whose reason is no UTF-8', Buffer.from([0x03, 0xe8, 0xff]), { opcode: OPCODE.close }, 1007],
    ['text that is no UTF-8', Buffer.from([0x7b, 0xc3, 0x28]), {}, 1007],
    ['text that ends within a character', Buffer.from([0x7b, 0xe2, 0x82]), {}, 1007],
  ];

describe.each(PATHS)('E12 a frame on %s that violates RFC 6455', (path) => {
  it.each(VIOLATIONS)('closes the connection: %s', async (_what, payload, options, code) => {
    const raw = await open(path);
    raw.sendFrame(payload, options);
    await until(() => raw.closeFrame);
    expect(raw.closeFrame?.code).toBe(code);
  });

  it('does not negotiate compression with a client that offers it', async () => {
    const raw = await open(path, { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' });
    expect((await raw.answer).status).toBe(101);
    expect((await raw.answer).headers).not.toHaveProperty('sec-websocket-extensions');
  });
});
