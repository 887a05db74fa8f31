import { describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { startStack, useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const processes = useStack({ gateways: 2, workers: 0, env: { DRAIN_SECONDS: '1' } });

describe('a node that stops', () => {
  it.each([
    ['over long polling', { transport: 'socketio', socketIoTransports: ['polling'] }],
    ['over Socket.IO', { transport: 'socketio' }],
    ['over raw WebSocket', { transport: 'ws' }],
  ] as const)('tells the last of its clients %s as well, and ends in order', async (_road, options) => {
    const { addresses, gateways } = processes();
    const { token } = mintToken({}, { stack: addresses });
    const client = await openClient({ ...options, url: addresses.gateways[1]?.url, token });
    await client.welcome();
    const stopped = gateways[1]?.stop();
    expect((await client.waitFor('server_draining')).fields).toMatchObject({ retry_after_ms: expect.any(Number) });
    await client.closed;
    expect(await stopped).toMatchObject({ code: 0 });
    await gateways[1]?.start();
  });

  it('waits for one that polls and is not asking just then, and lets no proxy keep a connection meanwhile', async () => {
    const { addresses, gateways } = processes();
    const url = `${addresses.gateways[1]?.url}/socket.io/?EIO=4&transport=polling`;
    const { sid } = JSON.parse((await (await fetch(url)).text()).slice(1)) as { sid: string };
    const { token } = mintToken({}, { stack: addresses });
    await fetch(`${url}&sid=${sid}`, { method: 'POST', body: `40${JSON.stringify({ token })}` });
    const poll = async () => (await fetch(`${url}&sid=${sid}`)).text();
    let packets = '';
    while (!packets.includes('connection_established')) packets += await poll();
    const stopped = gateways[1]?.stop();
    const ready = () => fetch(`${addresses.gateways[1]?.url}/health/ready`);
    const unready = await until(async () => {
      const answer = await ready();
      return answer.status === 503 ? answer : undefined;
    });
    expect(unready.headers.get('connection')).toBe('close');
    const lastPoll = await fetch(`${url}&sid=${sid}`);
    expect(lastPoll.headers.get('connection')).toBe('close');
    expect(await lastPoll.text()).toContain('server_draining');
    expect(await stopped).toMatchObject({ code: 0 });
  });

  it('notifies a client that was in its handshake when the drain began', async () => {
    const { addresses, gateways } = await startStack({ gateways: 1, workers: 0, env: { DRAIN_SECONDS: '6' } });
    const node = addresses.gateways[0]?.url;
    const url = `${node}/socket.io/?EIO=4&transport=polling`;
    const { sid } = JSON.parse((await (await fetch(url)).text()).slice(1)) as { sid: string };
    const { token } = mintToken({}, { stack: addresses });
    // The second one is sent away after three seconds; the drain lasts at least that long.
    for (let at = 0; at < 2; at += 1) await openClient({ url: node, token });
    const stopped = gateways[0]?.kill('SIGTERM');
    await until(async () => (await fetch(`${node}/health/ready`)).status === 503);
    await fetch(`${url}&sid=${sid}`, { method: 'POST', body: `40${JSON.stringify({ token })}` });
    let packets = '';
    while (!packets.includes('server_draining')) {
      const answer = await fetch(`${url}&sid=${sid}`);
      expect({ status: answer.status, packets }).toMatchObject({ status: 200 });
      packets += await answer.text();
    }
    expect(await stopped).toMatchObject({ code: 0 });
  }, 20_000);
});
