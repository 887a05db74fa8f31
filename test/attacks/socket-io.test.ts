import { describe, expect, it } from '@jest/globals';
import { nodeUrl } from '../support/nodes.ts';
import { OPCODE, openRawSocket, type RawSocket } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const PATH = '/socket.io/?EIO=4&transport=websocket';

const stack = useStack({ workers: 0, env: { AUTH_DEADLINE_SECONDS: '60' } });
const url = () => nodeUrl(0, stack().addresses);

function packets(raw: RawSocket): string[] {
  return raw.frames.filter(({ opcode }) => opcode === OPCODE.text).map(({ payload }) => `${payload}`);
}

async function packet(raw: RawSocket, start: string): Promise<string> {
  return until(() => packets(raw).find((one) => one.startsWith(start)), { label: `packet ${start}` });
}

/** An engine whose packets the test writes itself. */
async function openEngine(headers: Record<string, string> = {}): Promise<RawSocket> {
  const raw = openRawSocket({ url: url(), path: PATH, headers });
  await packet(raw, '0{');
  return raw;
}

async function connect(): Promise<RawSocket> {
  const raw = await openEngine();
  raw.sendFrame(`40${JSON.stringify({ token: mintToken({}, { stack: stack().addresses }).token })}`);
  await packet(raw, '40{');
  return raw;
}

describe.each([
  ['before authentication', openEngine],
  ['after authentication', connect],
])('over Socket.IO, %s', (_when, open) => {
  it('a namespace beside the one there is, is refused, and the engine is closed', async () => {
    const raw = await open();
    raw.sendFrame(`40/admin,${JSON.stringify({ token: mintToken({}, { stack: stack().addresses }).token })}`);
    expect(await packet(raw, '44/admin,')).toBe('44/admin,{"message":"Invalid namespace"}');
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1005, reason: '' });
  });

  it.each(['452-', '4510-', '45999999999-', '462-', '45-1-', '45x-', '450-'])(
    'a packet that announces too many attachments, or none, ends it: %s',
    async (start) => {
      const raw = await open();
      raw.sendFrame(`${start}["ping",{"_placeholder":true,"num":0}]`);
      expect((await until(() => raw.closeFrame)).code).toBe(1005);
    },
  );

  it('unannounced attachments end it', async () => {
    const raw = await open();
    raw.sendFrame(Buffer.alloc(60_000), { opcode: OPCODE.binary });
    expect((await until(() => raw.closeFrame)).code).toBe(1005);
  });
});

describe('over Socket.IO', () => {
  it('one attachment is let through, and answered as what it is', async () => {
    const raw = await connect();
    raw.sendFrame('451-7["ping",{"pad":{"_placeholder":true,"num":0}}]');
    raw.sendFrame(Buffer.alloc(100), { opcode: OPCODE.binary });
    expect(await packet(raw, '437[')).toContain('"ok":true');
  });

  it('a refused CONNECT closes the engine', async () => {
    const raw = await openEngine();
    raw.sendFrame('40{"token":"a.b.c"}');
    expect(await packet(raw, '44{')).toContain('"VALIDATION_FAILED"');
    expect((await until(() => raw.closeFrame)).code).toBe(1005);
    const watch = await Stopwatch.start();
    await raw.ended;
    expect(watch.ms).toBeLessThan(watch.allow(4_000));
  });

  it('64 KiB are read before authentication, in however many packets', async () => {
    const raw = await openEngine();
    for (let i = 0; i < 100; i++) raw.sendFrame(`3${'x'.repeat(1_000)}`);
    raw.sendFrame(`1${'x'.repeat(60_000)}`);
    raw.sendFrame(`1${'x'.repeat(60_000)}`);
    expect((await until(() => raw.closeFrame)).code).toBe(1005);
  });

  it.each(['http://evil.example.test', 'null', 'http://app.example.test:81', 'https://app.example.test'])(
    'the WebSocket transport is for known origins too: 403 for %s',
    async (origin) => {
      const raw = openRawSocket({ url: url(), path: PATH, headers: { Origin: origin } });
      expect((await raw.answer).status).toBe(403);
    },
  );

  it('a second WebSocket for one session ends, also when its close is not answered', async () => {
    const polled = await fetch(`${url()}/socket.io/?EIO=4&transport=polling`);
    const { sid } = JSON.parse((await polled.text()).slice(1));
    const first = openRawSocket({ url: url(), path: `${PATH}&sid=${sid}` });
    expect((await first.answer).status).toBe(101);
    first.sendFrame('2probe');
    await packet(first, '3probe');
    const watch = await Stopwatch.start();
    await openRawSocket({ url: url(), path: `${PATH}&sid=${sid}` }).ended;
    expect(watch.ms).toBeLessThan(watch.allow(4_000));
  });
});
