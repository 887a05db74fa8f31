import { beforeAll, describe, expect, it } from '@jest/globals';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { OPCODE, RawSocket } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

describe('the heartbeat', () => {
  const stack = useStack({
    workers: 0,
    env: { HEARTBEAT_INTERVAL_SECONDS: '1', CONNECTION_TIMEOUT_SECONDS: '3' },
  });
  const listening = new Map<string, TestClient>();
  let mute: RawSocket;

  // All at once, so that their waiting times overlap.
  beforeAll(async () => {
    const of = stack().addresses;
    const url = nodeUrl(0, of);
    mute = new RawSocket({
      url,
      path: '/ws/secure',
      headers: { Authorization: `Bearer ${mintToken({}, { stack: of }).token}` },
    });
    closeAfter('file', () => mute.destroy());
    for (const transport of TRANSPORTS) {
      const { token } = mintToken({}, { stack: of });
      listening.set(transport, await openClient({ transport, url, token, lifetime: 'file' }));
    }
  });

  it('ends a connection that answers nothing with 1001', async () => {
    await until(() => mute.closeFrame, { timeoutMs: 8_000, label: 'the close' });
    expect(mute.closeFrame).toEqual({ code: 1001, reason: 'CONNECTION_TIMEOUT' });
    // One per second on an idle machine; a busy one may skip all but one.
    expect(mute.frames.filter(({ opcode }) => opcode === OPCODE.ping).length).toBeGreaterThanOrEqual(1);
    const error = mute.frames
      .filter(({ opcode }) => opcode === OPCODE.text)
      .at(-1)
      ?.payload.toString();
    expect(error).toContain('CONNECTION_TIMEOUT');
  });

  it.each(TRANSPORTS)(
    'B13 over %s comes with timestamp and connection_id, and keeps a client that only listens',
    async (transport) => {
      const client = listening.get(transport) as TestClient;
      const { connection_id } = await client.welcome();
      const { fields } = await client.waitFor('heartbeat');
      expect(fields).toEqual({ connection_id, timestamp: expect.stringMatching(/Z$/) });
      // Five of them take longer than the timeout: the client sent nothing, but answered pings.
      let beats = 0;
      const fifth = () => ++beats === 5;
      const options = { timeoutMs: 8_000, label: 'the fifth heartbeat' };
      await client.waitFor(({ type }) => type === 'heartbeat' && fifth(), options);
      expect(client.events.filter(({ type }) => type === 'error')).toEqual([]);
    },
  );
});
