import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Resolves with the answers of a client, once there are this many. */
async function answers(client: TestClient, count: number) {
  const all = () => client.events.filter(({ type }) => type === 'pong' || type === 'error');
  await until(() => all().length >= count, { label: `${count} answers` });
  return all();
}

/** Expects a retry delay above zero that ends within the minute. */
function expectRefused(fields: Readonly<Record<string, unknown>>): void {
  expect(fields).toMatchObject({ code: 'RATE_LIMITED', retryable: true });
  expect(fields.message).toMatch(/rate limit/i);
  expect(fields.retry_after_ms).toBeGreaterThan(0);
  expect(fields.retry_after_ms).toBeLessThanOrEqual(60_000);
}

describe.each(TRANSPORTS)('the message limit over %s', (transport) => {
  it('B18 B25 B260 answers 35 pings at 10 ms, 30 by a pong and the others by RATE_LIMITED, and closes nothing', async () => {
    const { token } = mintToken({ plan: 'free' });
    const client = await openClient({ transport, token });
    for (let i = 0; i < 35; i++) {
      client.send('ping', { timestamp: i });
      await delay(10);
    }
    const received = await answers(client, 35);
    const pongs = received.filter(({ type }) => type === 'pong');
    expect(pongs.map(({ fields }) => fields.original_timestamp)).toEqual(Array.from({ length: 30 }, (_, i) => i));
    const refused = received.filter(({ type }) => type === 'error');
    expect(refused).toHaveLength(5);
    for (const { fields } of refused) expectRefused(fields);
    client.send('ping');
    await answers(client, 36);
  });

  it('B25 answers ten pings that are sent at once, in their order', async () => {
    const { token } = mintToken();
    const client = await openClient({ transport, token });
    for (let i = 0; i < 10; i++) client.send('ping', { timestamp: i });
    const received = await answers(client, 10);
    expect(received.map(({ fields }) => fields.original_timestamp)).toEqual(Array.from({ length: 10 }, (_, i) => i));
  });
});

describe('the message limit', () => {
  it('B18 refuses the 31st message of a free user in a minute, whichever node it meets', async () => {
    const { token } = mintToken({ plan: 'free' });
    const clients = await Promise.all([0, 1, 2].map((node) => openClient({ url: nodeUrl(node), token })));
    await Promise.all(clients.map((client) => client.welcome()));
    for (const client of clients) {
      for (let i = 0; i < 10; i++) client.send('ping', { timestamp: i });
    }
    for (const client of clients) expect((await answers(client, 10)).map(({ type }) => type)).not.toContain('error');
    for (const client of clients) {
      client.send('ping');
      const last = (await answers(client, 11)).at(-1);
      expectRefused(last?.fields ?? {});
    }
  });

  it('B18 B113 is exact when 60 messages come to three nodes at once', async () => {
    const { token } = mintToken({ plan: 'free' });
    const clients = await Promise.all([0, 1, 2].map((node) => openClient({ url: nodeUrl(node), token })));
    await Promise.all(clients.map((client) => client.welcome()));
    for (let i = 0; i < 20; i++) for (const client of clients) client.send('ping');
    const received = (await Promise.all(clients.map((client) => answers(client, 20)))).flat();
    expect(received).toHaveLength(60);
    expect(received.filter(({ type }) => type === 'pong')).toHaveLength(30);
  });

  it('is that of the plan, as the welcome tells it', async () => {
    const { token } = mintToken({ plan: 'pro' });
    const client = await openClient({ token });
    const { limits } = await client.welcome();
    expect(limits).toMatchObject({ max_message_rate: 60 });
    // In two halves: more than 64 at once would exceed the queue of the dispatcher first.
    for (let half = 1; half <= 2; half++) {
      for (let i = 0; i < 31; i++) client.send('ping');
      await answers(client, 31 * half);
    }
    const received = await answers(client, 62);
    expect(received.filter(({ type }) => type === 'pong')).toHaveLength(60);
  });

  it('refuses a request with its request_id, and starts nothing', async () => {
    const { token } = mintToken({ plan: 'free' });
    const client = await openClient({ token });
    for (let i = 0; i < 30; i++) client.send('ping');
    await answers(client, 30);
    client.send('agent_request', { message: 'How is my workload?', request_id: 'req_late' });
    const { fields } = await client.waitFor('error');
    expectRefused(fields);
    expect(fields.request_id).toBe('req_late');
    const other = await openClient({ token: mintToken().token });
    other.send('ping');
    await other.waitFor('pong');
    expect(client.events.map(({ type }) => type)).not.toContain('agent_accepted');
  });

  it('does not count what another user sends', async () => {
    const [one, other] = [mintToken({ plan: 'free' }), mintToken({ plan: 'free' })];
    const loud = await openClient({ token: one.token });
    for (let i = 0; i < 35; i++) loud.send('ping');
    await answers(loud, 35);
    const quiet = await openClient({ token: other.token });
    quiet.send('ping');
    await quiet.waitFor('pong');
  });

  it('refuses what a client sends faster than it can be answered, and answers each message', async () => {
    const { token } = mintToken({ plan: 'developer' });
    const client = await openClient({ token });
    await client.welcome();
    for (let i = 0; i < 300; i++) client.send('ping', { timestamp: i });
    const received = await answers(client, 300);
    expect(received).toHaveLength(300);
    for (const { fields } of received.filter(({ type }) => type === 'error')) expectRefused(fields);
    const pongs = received.filter(({ type }) => type === 'pong').map(({ fields }) => Number(fields.original_timestamp));
    expect(pongs).toEqual(pongs.toSorted((a, b) => a - b));
  });
});
