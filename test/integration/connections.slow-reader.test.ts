import { describe, expect, it } from '@jest/globals';
import { WebSocket } from 'ws';
import { openClient } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const processes = useStack({ gateways: 1, workers: 0, env: { MESSAGE_RATE_PER_MINUTE: '1000000' } });

async function metricsOf(url: string): Promise<string> {
  return (await fetch(`${url}/metrics`)).text();
}

describe('a client that sends and does not read', () => {
  it('is closed with 4002 SLOW_CONSUMER, and the node continues', async () => {
    const { addresses } = processes();
    const url = nodeUrl(0, addresses);
    const { token } = mintToken({}, { stack: addresses });
    const socket = new WebSocket(`${url.replace('http', 'ws')}/ws/secure`, {
      headers: { authorization: `Bearer ${token}` },
    });
    await new Promise((resolve) => socket.once('open', resolve));
    const closed = new Promise<number>((resolve) => socket.once('close', resolve));
    socket.on('error', () => undefined);
    socket.pause();
    const frame = JSON.stringify({ type: 'tools_list' });
    const send = setInterval(() => {
      // The node writes sixty times the amount that is sent here.
      for (let i = 0; i < 500 && socket.readyState === WebSocket.OPEN; i++) socket.send(frame);
    }, 5);
    const other = mintToken({}, { stack: addresses });
    const client = await openClient({ url, token: other.token });
    // The client reads the rest after the node has closed it; the close frame follows.
    const givenUp = async () => (await metricsOf(url)).includes('tollgate_closes_total{code="SLOW_CONSUMER"} 1');
    await until(givenUp, { timeoutMs: 15_000, label: 'the end of the slow reader' });
    clearInterval(send);
    socket.resume();
    expect([4002, 1006]).toContain(await closed);
    client.send('ping');
    await client.waitFor('pong');
  });
});
