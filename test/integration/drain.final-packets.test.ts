import { describe, expect, it } from '@jest/globals';
import { openClient } from '../support/clients.ts';
import { useStack } from '../support/stack.ts';
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
});
