import { afterEach, describe, expect, it } from '@jest/globals';
import type { TollgateError } from '../../packages/client/src/errors.ts';
import { Tollgate, type TollgateOptions } from '../../packages/client/src/tollgate.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { ScriptedTransport } from '../support/scripted-transport.ts';
import { until } from '../support/until.ts';

const clients: Tollgate[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

function create(options: Partial<TollgateOptions> = {}) {
  const transport = new ScriptedTransport();
  const clock = new ManualClock();
  const tokens: (string | undefined)[] = [];
  const client = new Tollgate({
    url: 'http://gateway.test',
    transport: transport.open,
    getToken: ({ previous }) => {
      tokens.push(previous);
      return `token-${tokens.length}`;
    },
    clock,
    random: () => 1,
    ...options,
  });
  clients.push(client);
  const errors: TollgateError[] = [];
  const events: number[] = [];
  const lost: string[] = [];
  client.on('error', (error) => errors.push(error));
  client.on('event', ({ seq }) => events.push(seq));
  client.on('lost', (reason) => lost.push(reason));
  /** Waits until the client has made `count` attempts. */
  const attempts = (count: number) => until(() => transport.connections.length === count);
  return { client, transport, clock, tokens, errors, events, lost, attempts };
}

async function connected(options: Partial<TollgateOptions> = {}) {
  const created = create(options);
  created.client.connect();
  await created.attempts(1);
  created.transport.current.welcome();
  return created;
}

describe('the connection of a client', () => {
  it('sends a request once that a listener of the identity makes', async () => {
    const { client, transport, attempts } = create();
    client.on('identity', () => void client.tools().catch(() => {}));
    client.connect();
    await attempts(1);
    transport.current.welcome();
    expect(transport.current.sent.filter(({ type }) => type === 'tools_list')).toHaveLength(1);
  });

  it('resumes after the last event, and delivers each event once', async () => {
    const { transport, clock, events, attempts } = await connected();
    for (const seq of [1, 2]) transport.current.message('agent_thinking', { seq });
    transport.current.close();
    clock.advance(500);
    await attempts(2);
    expect(transport.current.options.position).toEqual({ after: 2, epoch: 'e1' });
    transport.current.welcome({ seq: 4 });
    for (const seq of [2, 3, 4]) transport.current.message('agent_thinking', { seq });
    transport.current.message('resumed', { from: 3, to: 4, epoch: 'e1' });
    transport.current.message('agent_thinking', { seq: 5 });
    expect(events).toEqual([1, 2, 3, 4, 5]);
  });

  it('delivers durable events of a type that only a backend knows', async () => {
    const { transport, events } = await connected();
    transport.current.message('order.shipped', { seq: 1, order: 7 });
    expect(events).toEqual([1]);
  });

  it('requests the missing events when one is skipped, and drops those that the replay repeats', async () => {
    const { transport, events } = await connected();
    transport.current.message('agent_thinking', { seq: 1 });
    transport.current.message('agent_thinking', { seq: 3 });
    expect(transport.current.last('resume')).toEqual({ after: 1, epoch: 'e1' });
    for (const seq of [4, 2, 3, 4]) transport.current.message('agent_thinking', { seq });
    transport.current.message('resumed', { from: 2, to: 4, epoch: 'e1' });
    expect(events).toEqual([1, 2, 3, 4]);
  });

  it('reports a trimmed log and reads on from the oldest event', async () => {
    const { transport, events, lost } = await connected();
    transport.current.message('resume_failed', { reason: 'trimmed', oldest_seq: 7, epoch: 'e1' });
    expect(lost).toEqual(['trimmed']);
    expect(transport.current.last('resume')).toEqual({ after: 6, epoch: 'e1' });
    transport.current.message('agent_thinking', { seq: 9 });
    for (const seq of [7, 8, 9]) transport.current.message('agent_thinking', { seq });
    expect(events).toEqual([7, 8, 9]);
  });

  it('waits twice as long after each failure, up to the maximum', async () => {
    const { transport, clock, attempts } = await connected();
    for (const [index, delayMs] of [500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000].entries()) {
      transport.current.close();
      clock.advance(delayMs - 1);
      expect(transport.connections).toHaveLength(index + 1);
      clock.advance(1);
      await attempts(index + 2);
    }
  });

  it('stays away as long as a draining node asks', async () => {
    const { transport, clock, attempts } = await connected();
    transport.current.message('server_draining', { retry_after_ms: 3_000 });
    transport.current.close({ code: 'SERVER_DRAINING' });
    clock.advance(2_999);
    expect(transport.connections).toHaveLength(1);
    clock.advance(1);
    await attempts(2);
  });

  it.each([
    { code: 'CONNECTION_LIMIT_EXCEEDED', final: true },
    { code: 'USER_BLOCKED', final: false },
    { code: undefined, final: true },
  ])('does not reconnect after $code (final: $final)', async (reason) => {
    const { client, transport, clock, errors } = await connected();
    transport.current.close(reason);
    clock.advance(600_000);
    expect(client.state).toBe('stopped');
    expect(transport.connections).toHaveLength(1);
    expect(errors.at(-1)?.code).toBe(reason.code ?? 'DISCONNECTED');
  });

  it('fetches a new token at once when a token expires, and gives up when the new one is refused', async () => {
    const { client, transport, tokens, attempts } = await connected();
    transport.current.close({ code: 'VALIDATION_FAILED' });
    await attempts(2);
    expect(transport.current.options.token).toBe('token-2');
    expect(tokens).toEqual([undefined, 'token-1']);
    transport.current.close({ code: 'VALIDATION_FAILED' });
    expect(client.state).toBe('stopped');
  });

  it('uses the token that the gateway has refreshed', async () => {
    const { client, transport, clock, tokens, attempts } = await connected();
    const refreshed: string[] = [];
    client.on('token', (token) => refreshed.push(token));
    const token_expires_at = new Date(clock.now() + 3_600_000).toISOString();
    transport.current.message('token_refreshed', { access_token: 'newer', token_expires_at });
    transport.current.close();
    clock.advance(500);
    await attempts(2);
    expect(transport.current.options.token).toBe('newer');
    expect(refreshed).toEqual(['newer']);
    expect(tokens).toHaveLength(1);
  });

  it('presents a token of its own when the gateway cannot refresh the session', async () => {
    const { transport } = await connected();
    transport.current.message('token_degraded', { until: '2026-01-01T00:00:00.000Z' });
    await until(() => transport.current.last('token_refresh'));
    expect(transport.current.last('token_refresh')).toEqual({ token: 'token-2' });
  });

  it('hands over its refresh token on each connection, and replaces it by the next one', async () => {
    const getToken = () => ({ token: 'access-1', refreshToken: 'refresh-1' });
    const { client, transport, clock, attempts } = await connected({ getToken });
    const stored: unknown[] = [];
    client.on('tokens', (tokens) => stored.push(tokens));
    expect(transport.current.last('token_refresh')).toEqual({ token: 'access-1', refresh_token: 'refresh-1' });
    transport.current.message('token_refreshed', { access_token: 'access-2', refresh_token: 'refresh-2' });
    expect(stored).toEqual([{ token: 'access-2', refreshToken: 'refresh-2' }]);
    transport.current.close();
    clock.advance(500);
    await attempts(2);
    transport.current.welcome();
    expect(transport.current.last('token_refresh')).toEqual({ token: 'access-2', refresh_token: 'refresh-2' });
  });

  it.each([
    ['a date', new Date(60_000)],
    ['ISO 8601', new Date(60_000).toISOString()],
    ['milliseconds', 60_000],
  ])('fetches another token before the last one expires, with the expiry as %s', async (_, expiresAt) => {
    let fetched = 0;
    const getToken = () => ({ token: `t${++fetched}`, expiresAt });
    const clock = new ManualClock(0);
    const { transport, attempts } = await connected({ getToken, clock });
    clock.advance(54_000);
    transport.current.close();
    clock.advance(500);
    await attempts(2);
    expect(transport.current.options.token).toBe('t1');
    transport.current.close();
    clock.advance(1_000);
    await attempts(3);
    expect(transport.current.options.token).toBe('t2');
  });

  it('tries again when getToken fails, and stops when the user has signed out', async () => {
    const answers: (() => string | null)[] = [
      () => {
        throw new Error('offline');
      },
      () => null,
    ];
    const { client, clock, errors } = create({ getToken: () => answers.shift()?.() });
    client.connect();
    await until(() => client.state === 'waiting');
    clock.advance(500);
    await until(() => client.state === 'stopped');
    expect(errors.map(({ code, retryable }) => [code, retryable])).toEqual([
      ['SIGNED_OUT', true],
      ['SIGNED_OUT', false],
    ]);
  });

  it('drops a connection without heartbeats', async () => {
    const { client, transport, clock, attempts } = await connected();
    clock.advance(30_000);
    transport.current.message('heartbeat');
    clock.advance(60_000);
    expect(client.state).toBe('connected');
    clock.advance(30_000);
    expect(transport.connections[0]?.closedByClient).toBe(true);
    clock.advance(500);
    await attempts(2);
  });

  it('gives up an attempt without a welcome, and tries again', async () => {
    const { client, transport, clock, attempts } = create();
    client.connect();
    await attempts(1);
    clock.advance(15_000);
    expect(transport.connections[0]?.closedByClient).toBe(true);
    clock.advance(500);
    await attempts(2);
  });

  it('ignores an earlier connection that speaks after it was dropped', async () => {
    const { transport, clock, events, attempts } = await connected();
    const [first] = transport.connections;
    clock.advance(100_000);
    clock.advance(500);
    await attempts(2);
    first?.message('agent_thinking', { seq: 1 });
    first?.close();
    expect(events).toEqual([]);
    expect(transport.connections).toHaveLength(2);
  });

  it('keeps its position across page loads, and starts anew with a position that is no position', async () => {
    const stored = new Map<string, string>();
    const storage = {
      getItem: (key: string) => stored.get(key) ?? null,
      setItem: (key: string, value: string) => void stored.set(key, value),
    };
    const { client, transport } = await connected({ storage });
    transport.current.message('agent_thinking', { seq: 1 });
    client.close();
    const second = create({ storage });
    second.client.connect();
    await second.attempts(1);
    expect(second.transport.current.options.position).toEqual({ after: 1, epoch: 'e1' });

    stored.set('tollgate.position', '{"after":-1}');
    const third = create({ storage });
    third.client.connect();
    await third.attempts(1);
    expect(third.transport.current.options.position).toBeUndefined();
  });

  it('reports a storage that is full, and goes on', async () => {
    const setItem = () => {
      throw new Error('full');
    };
    const { client, transport, clock, errors } = await connected({ storage: { getItem: () => null, setItem } });
    transport.current.message('agent_thinking', { seq: 1 });
    clock.advance(250);
    expect([client.state, errors.at(-1)?.code]).toEqual(['connected', 'POSITION_NOT_SAVED']);
  });

  it.each([
    ['CANNOT_CONNECT', 'a URL that is none', { url: 'http://[gateway', WebSocket: globalThis.WebSocket }],
    ['NO_WEBSOCKET', 'a runtime without WebSocket', { url: 'http://gateway.test' }],
  ])('stops with %s at %s, and makes no attempt before', async (code, _, options) => {
    const given = globalThis.WebSocket;
    Reflect.deleteProperty(globalThis, 'WebSocket');
    const { client, errors } = create({ transport: undefined, ...(options as Partial<TollgateOptions>) });
    try {
      const run = client.run('Hello');
      await expect(run.result()).rejects.toMatchObject({ code, retryable: false });
      expect([client.state, errors.map((error) => error.code)]).toEqual(['stopped', [code]]);
    } finally {
      globalThis.WebSocket = given;
    }
  });

  it('can connect again after close', async () => {
    const { client, attempts } = await connected();
    client.close();
    expect(client.state).toBe('stopped');
    client.connect();
    await attempts(2);
  });
});
