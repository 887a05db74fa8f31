import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { ask, Frames } from '../support/cpu/carriers.ts';
import { scrape } from '../support/metrics.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const BOUND_MS = 200;
const SLOW = { value: 'slow-on-purpose' };
const POLLING = '/socket.io/?EIO=4&transport=polling';
const PRELOAD = fileURLToPath(new URL('../support/slow-json.mjs', import.meta.url));

let lastAddress = 0;
/** RFC 5737. */
function freshAddress(): string {
  lastAddress += 1;
  return `198.51.100.${lastAddress}`;
}

describe('an address whose input keeps the event loop', () => {
  const stack = useStack({
    workers: 0,
    env: {
      NODE_OPTIONS: `--import=${PRELOAD}`,
      BLOCKING_MS_PER_MINUTE: String(BOUND_MS),
      TRUSTED_PROXY_HOPS: '1',
    },
  });
  const url = () => nodeUrl(0, stack().addresses);
  const from = (address: string) => ({ 'x-forwarded-for': address });
  /** Returns the status of a handshake without a credential. */
  const stranger = async (address: string) => {
    return (await openRawSocket({ url: url(), path: '/ws', headers: from(address) }).answer).status;
  };
  const polling = async (address: string) => {
    const { text } = await ask({ url: url(), path: POLLING, headers: from(address) });
    const headers = { ...from(address), 'content-type': 'text/plain;charset=UTF-8' };
    const path = `${POLLING}&sid=${JSON.parse(text.slice(1)).sid}`;
    await ask({ url: url(), path, method: 'POST', headers, body: `40${JSON.stringify(SLOW)}` });
  };
  const frame = async (address: string, path: string, text: string) => {
    const frames = await Frames.open({ url: url(), path, headers: from(address) });
    frames.send(text);
    await frames.next();
    frames.end();
  };
  const surfaces: Readonly<Record<string, (address: string) => Promise<unknown>>> = {
    websocket: (address) => frame(address, '/ws', JSON.stringify({ type: 'x', payload: SLOW })),
    polling,
    http_body: (address) => {
      // The credential is checked before the body is read, so the body is that of a user.
      const authorization = `Bearer ${mintToken({}, { stack: stack().addresses }).token}`;
      const headers = { ...from(address), 'content-type': 'application/json', authorization };
      return ask({ url: url(), path: '/v1/tickets', method: 'POST', headers, body: JSON.stringify(SLOW) });
    },
  };

  it.each(Object.entries(surfaces))(
    'by %s is refused early, once it is above the bound a minute',
    async (surface, send) => {
      const [address, other] = [freshAddress(), freshAddress()];
      expect(await stranger(address)).toBe(101);
      const before = (await scrape(url(), 'tollgate_long_tasks_total')).get(`surface="${surface}"`) ?? 0;
      await send(address);
      expect(await stranger(address)).toBe(101);
      await until(async () => {
        await send(address);
        return (await stranger(address)) === 429;
      });
      const { headers, status } = await openRawSocket({ url: url(), path: '/ws', headers: from(address) }).answer;
      expect([status, Number(headers['retry-after']) > 30]).toEqual([429, true]);
      const after = (await scrape(url(), 'tollgate_long_tasks_total')).get(`surface="${surface}"`) ?? 0;
      expect(after - before).toBeGreaterThanOrEqual(BOUND_MS / 100);
      expect(await stranger(other)).toBe(101);
    },
  );

  it('stays open for users with a good token, and their connections go on', async () => {
    const address = freshAddress();
    const { token } = mintToken({}, { stack: stack().addresses });
    const earlier = await openClient({ url: url(), token, headers: from(address) });
    await earlier.welcome();
    await until(async () => {
      await surfaces.websocket?.(address);
      return (await stranger(address)) === 429;
    });
    const later = await openClient({ url: url(), token, headers: from(address) });
    expect((await later.welcome()).authenticated).toBe(true);
    for (const client of [earlier, later]) {
      client.send('ping', {});
      await client.waitFor('pong');
    }
  });
});
