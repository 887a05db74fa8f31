import { beforeAll, describe, expect, it } from '@jest/globals';
import { appendForUser, PUBLISHED_KEYS, PUBLISHED_PER_MINUTE } from '../../src/events/published-events.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { publishedEvent } from '../../src/protocol/messages.ts';
import { type Admin, requestAdmin, startAdmin } from '../support/admin.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { type Core, startCore } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { nodeUrl } from '../support/nodes.ts';
import { stack } from '../support/stack.ts';
import { freshUserId, mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let publish: Admin;
beforeAll(async () => {
  publish = await startAdmin(stack(), 'events:write');
});

const EVENT = { type: 'order.shipped', fields: { order: '4711', nested: { deep: [1, null] } }, durable: true };
const path = (userId: string) => `/v1/users/${userId}/events`;

/** Sends with an idempotency key. */
async function send(userId: string, body: object, key: string, scope = 'events:write') {
  const authorization = `Bearer ${await serviceToken(scope, { clientId: 'notifier' })}`;
  const headers = { authorization, 'idempotency-key': key, 'content-type': 'application/json' };
  return requestAdmin(new URL(path(userId), nodeUrl(1)), 'POST', headers, body);
}

describe.each(TRANSPORTS)('a durable event over %s', (transport) => {
  it('reaches a connected client with its seq, and a client that resumes later', async () => {
    const { token, userId } = mintToken();
    const client = await openClient({ transport, token });
    const { epoch } = await client.welcome();
    const { status, body } = await publish('POST', path(userId), EVENT, 2);
    expect([status, body]).toEqual([201, { user_id: userId, type: EVENT.type, seq: 1, epoch: expect.any(String) }]);
    expect((await client.waitFor(EVENT.type)).fields).toMatchObject({ seq: 1, ...EVENT.fields });
    client.close();
    await client.closed;
    await publish('POST', path(userId), { ...EVENT, fields: { order: '4712' } });
    const later = await openClient({ transport, url: nodeUrl(1), token });
    await later.welcome();
    later.send('resume', { after: 0, epoch });
    await later.waitFor('resumed');
    const received = later.events.filter(({ type }) => type === EVENT.type);
    expect(received.map(({ fields }) => [fields.seq, fields.order])).toEqual([
      [1, '4711'],
      [2, '4712'],
    ]);
  });
});

describe('a durable event', () => {
  it('is appended once per idempotency key, and a repetition returns the first position', async () => {
    const userId = freshUserId();
    const first = await send(userId, EVENT, 'order-4711');
    const again = await send(
      userId,
      { ...EVENT, fields: { nested: EVENT.fields.nested, order: '4711' } },
      'order-4711',
    );
    expect([again.status, again.body]).toEqual([201, first.body]);
    const other = await send(userId, { ...EVENT, fields: {} }, 'order-4711');
    expect([other.status, other.body.error.code]).toEqual([422, 'IDEMPOTENCY_CONFLICT']);
    expect((await send(userId, EVENT, 'order-4712')).body.seq).toBe(2);
    expect((await send(freshUserId(), EVENT, 'order-4711')).body.seq).toBe(1);
  });

  it('needs the scope events:write or admin, and durable for an idempotency key', async () => {
    const userId = freshUserId();
    expect((await send(userId, EVENT, 'a', 'usage:read usage:write')).status).toBe(403);
    expect((await send(userId, EVENT, 'b', 'admin')).status).toBe(201);
    const transient = await send(userId, { type: 'notice' }, 'c');
    expect([transient.status, transient.body.error.code]).toEqual([400, 'FORMAT_ERROR']);
    expect((await publish('POST', path(userId), { type: 'notice' })).status).toBe(202);
    expect((await publish('PUT', `/v1/users/${userId}/plan`, { plan: 'pro' })).status).toBe(403);
  });

  it('cannot be one of the gateway, and has the bound of a transient one', async () => {
    const userId = freshUserId();
    for (const type of ['agent_completed', 'thread_updated', 'error', 'connect_error']) {
      expect((await publish('POST', path(userId), { ...EVENT, type })).status).toBe(400);
    }
    for (const name of ['seq', 'epoch', 'timestamp', 'type']) {
      expect((await publish('POST', path(userId), { ...EVENT, fields: { [name]: 1 } })).status).toBe(400);
    }
    const large = { ...EVENT, fields: { text: 'x'.repeat(9_000) } };
    expect((await publish('POST', path(userId), large)).status).toBe(413);
  });

  it('above the rate of a user is refused until the minute ends, and costs no other user', async () => {
    const userId = freshUserId();
    const sent = await Promise.all(
      Array.from({ length: PUBLISHED_PER_MINUTE + 5 }, (_, at) => publish('POST', path(userId), EVENT, at % 3)),
    );
    const refused = sent.filter(({ status }) => status !== 201);
    expect(refused.map(({ body }) => body.error.code)).toEqual(Array(5).fill('RATE_LIMITED'));
    for (const { body } of refused) expect(body.error.retry_after_ms).toBeLessThanOrEqual(60_000);
    expect((await publish('POST', path(freshUserId()), EVENT)).status).toBe(201);
  });
});

describe('the store of durable events', () => {
  let core: Core;
  beforeAll(async () => {
    core = await startCore();
  });
  const append = (userId: string, idempotencyKey: string) => {
    const event = publishedEvent({ type: 'notice' });
    if (!event) throw new Error('the event is not valid');
    const publication = { userId, ...event, serviceId: 's', idempotencyKey };
    return appendForUser({ ...core, clock: new ManualClock() }, publication);
  };

  it('keeps a bounded number of idempotency keys, the latest', async () => {
    const userId = freshUserId();
    const keys = core.keys.user(userId);
    for (let at = 0; at < PUBLISHED_KEYS + 20; at++) {
      if (at % PUBLISHED_PER_MINUTE === 0) await core.redis.hdel(keys.published, ':ends', ':count');
      await append(userId, `key-${at}`);
    }
    expect(await core.redis.zcard(keys.publishedKeys)).toBe(PUBLISHED_KEYS);
    expect(await core.redis.hlen(keys.published)).toBe(PUBLISHED_KEYS + 2);
    expect(await append(userId, `key-${PUBLISHED_KEYS + 19}`)).toMatchObject({ seq: PUBLISHED_KEYS + 20 });
    for (const key of [keys.published, keys.publishedKeys]) expect(await core.redis.pttl(key)).toBeGreaterThan(0);
  });

  it('accepts no event while the data of the user is being erased', async () => {
    const userId = freshUserId();
    await core.redis.hset(core.keys.user(userId).account, 'erasure', 'erased_1');
    const refused = await append(userId, 'a').catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(TollgateError);
    expect(refused).toMatchObject({ code: 'USER_BLOCKED' });
    expect(await core.redis.exists(core.keys.user(userId).log)).toBe(0);
    await until(async () => (await core.redis.exists(core.keys.user(userId).published)) === 0);
  });
});
