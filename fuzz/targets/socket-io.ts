import { EventEmitter } from 'node:events';
import { decodePayload, encodePayload, type Packet } from 'engine.io-parser';
import { BEYOND_BOUNDS, boundedParser } from '../../src/transports/bounded-parser.ts';
import { boundPayloads, type EngineSocket, isConnect, isForeign, packetBytes } from '../../src/transports/engines.ts';
import { require, requireSame, type Target } from '../lib/target.ts';

/** Errors of socket.io-parser for malformed packets. Socket.IO closes the engine for each. */
const PARSER_ERRORS =
  /^(invalid payload|unknown packet type|illegal|Illegal|got plaintext data|got binary data|Unknown type|too many attachments|invalid format|.*nested too deeply|.*too many values)/;

const packet: Target = {
  name: 'socket-io-packet',
  seeds: ['0{"token":"a.b.c"}', '0/admin,{}', '2["ping",{}]', '212["tool_call",{"tool":"x"}]', '1', '3["ok"]', '4"no"'],
  words: ['0', '1', '2', '3', '4', '51-["x",{"_placeholder":true,"num":0}]', '/admin,', '[', '"connect"', '{"x":1}'],
  packages: ['socket.io-parser'],
  isRefusal: (error) => error instanceof Error && PARSER_ERRORS.test(error.message),
  run(input) {
    const text = input.toString('utf8');
    const decoder = new boundedParser.Decoder();
    const decoded: { type: number; data?: unknown; id?: number; nsp: string }[] = [];
    decoder.on('decoded', (one: (typeof decoded)[number]) => decoded.push(one));
    try {
      decoder.add(text);
      isConnect(text);
      isForeign(text);
    } finally {
      decoder.destroy();
    }
    require(decoded.length <= 1, 'one text is at most one packet');
    const [first] = decoded;
    if (!first || (Array.isArray(first.data) && first.data[0] === BEYOND_BOUNDS)) return;
    const [again = ''] = new boundedParser.Encoder().encode(first as never);
    const second: unknown[] = [];
    const other = new boundedParser.Decoder();
    other.on('decoded', (one: unknown) => second.push(one));
    other.add(again);
    requireSame(second, [first], 'a packet that is encoded and decoded is the same');
  },
};

/** The parts of Engine.IO's polling transport that `boundPayloads` replaces. */
class PollingTransport extends EventEmitter {
  readonly name = 'polling';
  readonly packets: Packet[] = [];

  onData(payload: string): void {
    this.packets.push(...decodePayload(payload, 'nodebuffer' as never));
  }
}

const MAX_PACKETS = 20;

const payload: Target = {
  name: 'engine-io-payload',
  seeds: ['40{"token":"x"}', '42["ping",{}]\x1e42["ping",{}]\x1e3', 'bAQID\x1e4x', '2probe', '5\x1e6\x1e1'],
  words: ['\x1e', '4', 'b', '40', '42', '3', '2probe', '451-'],
  packages: ['engine.io-parser'],
  run(input) {
    const body = input.toString('utf8');
    const transport = new PollingTransport();
    let refused = false;
    const engine = { transport } as unknown as EngineSocket;
    boundPayloads(
      engine,
      () => MAX_PACKETS,
      () => {
        refused = true;
      },
    );
    transport.onData(body);
    require(refused ===
      body.split('\x1e').length > MAX_PACKETS, 'a payload above the bound is refused, others are not');
    require(!refused || transport.packets.length === 0, 'no packet of a refused payload is decoded');
    for (const { type, data } of transport.packets) {
      // The data of an error is a text of the parser.
      require(type === 'error' ||
        packetBytes(data) <= Buffer.byteLength(body), 'packets are not larger than their payload');
    }
    // The decoder stops at the first packet that is none.
    if (refused || transport.packets.some(({ type, data }) => type === 'error' || typeof data !== 'string')) return;
    encodePayload(transport.packets, (again) => {
      requireSame(decodePayload(again), transport.packets, 'a payload that is encoded and decoded is the same');
    });
  },
};

export const SOCKET_IO_TARGETS: readonly Target[] = [packet, payload];
