import { spawnSync } from 'node:child_process';
import { get } from 'node:http';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { io, type Socket } from 'socket.io-client';
import { HAPROXY_CONFIG, haproxyEnvironment } from '../../scripts/lib/haproxy.ts';
import { httpStatus } from '../../scripts/lib/processes.ts';
import { loadConfig } from '../../src/config.ts';
import { publicError, TollgateError } from '../../src/protocol/errors.ts';
import { openClient } from '../support/clients.ts';
import { openStream } from '../support/event-stream.ts';
import { readHaproxyTimeouts } from '../support/haproxy-config.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, HAPROXY } from '../support/programs.ts';
import { seqs, upTo } from '../support/runs.ts';
import { type StackProcess, useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const FAILURES_PER_MINUTE = 5;
const DRAIN_SECONDS = 6;

describe('the timeouts of the load balancer', () => {
  const timeouts = readHaproxyTimeouts();
  const defaults = loadConfig({
    JWT_SECRET_KEY: 'a-key-for-this-test-and-for-nothing-else',
    SERVICE_SECRET: 'a-secret-for-this-test-and-nothing-else',
    AUTH_SERVICE_URL: 'http://auth',
    REDIS_URL: 'redis://redis',
  });

  it('leave it to the gateway to end silent WebSockets and unanswered polls', () => {
    expect(timeouts.tunnel).toBeGreaterThan(defaults.CONNECTION_TIMEOUT_SECONDS);
    // A poll waits for at most Engine.IO's ping interval.
    expect(Math.min(timeouts.client ?? 0, timeouts.server ?? 0)).toBeGreaterThan(25);
  });
});

describeWith(HAPROXY, 'three gateways behind HAProxy', () => {
  const env = {
    TRUSTED_PROXY_HOPS: '1',
    AUTH_FAILURES_PER_MINUTE: String(FAILURES_PER_MINUTE),
    DRAIN_SECONDS: String(DRAIN_SECONDS),
  };
  const processes = useStack({ gateways: 3, workers: 1, env });
  let url: string;

  beforeAll(async () => {
    ({ url } = await startLoadBalancer(processes().gateways.map((gateway) => gateway.url)));
  });

  const mint = () => mintToken({}, { stack: processes().addresses });

  /** Socket.IO over long polling only, with a cookie jar like a browser's. */
  function pollingClient(token: string, options: { withCredentials: boolean } = { withCredentials: true }): Socket {
    const socket = io(url, {
      transports: ['polling'],
      auth: { token },
      forceNew: true,
      reconnection: false,
      ...options,
    });
    closeAfter('test', () => void socket.disconnect());
    return socket;
  }

  async function connected(socket: Socket): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      socket.once('connection_established', resolve);
      socket.once('connect_error', reject);
      socket.once('disconnect', (reason) => reject(new Error(reason)));
    });
  }

  /** Opens a polling session that the load balancer assigns to that node. */
  async function pollingSessionOn(serverId: unknown): Promise<Socket> {
    return until(
      async () => {
        const socket = pollingClient(mint().token);
        return (await connected(socket)).server_id === serverId ? socket : undefined;
      },
      { label: 'a polling session on the node' },
    );
  }

  /** Returns the process of a welcome: each reports its node id on its own address too. */
  async function nodeOf(serverId: unknown): Promise<StackProcess> {
    for (const gateway of processes().gateways) {
      const probe = await openClient({ url: gateway.url, token: mint().token });
      const { server_id } = await probe.welcome();
      await probe.close();
      if (server_id === serverId) return gateway;
    }
    throw new Error(`no gateway is ${serverId}`);
  }

  /** Waits until HAProxy has every node in its rotation again. */
  async function allNodesUp(): Promise<void> {
    const seen = new Set<unknown>();
    const everyNode = async () => {
      const client = await openClient({ url, token: mint().token });
      if (!client.refusal) seen.add((await client.welcome()).server_id);
      return seen.size === 3;
    };
    await until(everyNode, { timeoutMs: 20_000, label: 'three nodes behind the load balancer' });
  }

  it('accepts the configuration without a warning', () => {
    const environment = { PATH: process.env.PATH, ...haproxyEnvironment(20_000, [url, url, url]) };
    const check = spawnSync(HAPROXY.command, ['-c', '-f', HAPROXY_CONFIG], { env: environment, encoding: 'utf8' });
    expect(`${check.stdout}${check.stderr}`.trim()).toBe('Configuration file is valid');
  });

  it('B234 gives every node a share of the WebSockets, and each of them its whole run', async () => {
    const clients = await Promise.all(
      Array.from({ length: 6 }, (_, i) =>
        openClient({ url, token: mint().token, transport: i % 2 ? 'ws' : 'socketio' }),
      ),
    );
    const nodes = await Promise.all(clients.map(async (client) => (await client.welcome()).server_id));
    expect(new Set(nodes).size).toBe(3);
    for (const client of clients) client.send('agent_request', { message: 'Hello' });
    for (const client of clients) {
      await client.waitFor('agent_completed');
      expect(seqs(client.events)).toEqual(upTo(seqs(client.events).length));
    }
  });

  it('B225 B226 keeps users apart who are there at once: each gets the events of its own run and no others', async () => {
    const users = Array.from({ length: 10 }, mint);
    const clients = await Promise.all(users.map(({ token }) => openClient({ url, token })));
    expect(clients.filter(({ refusal }) => refusal)).toEqual([]);
    for (const client of clients) client.send('agent_request', { message: 'Hello' });
    await Promise.all(clients.map((client) => client.waitFor('agent_completed', { timeoutMs: 20_000 })));
    for (const [index, client] of clients.entries()) {
      const owners = client.events.flatMap(({ fields }) => (fields.user_id === undefined ? [] : [fields.user_id]));
      expect(new Set(owners)).toEqual(new Set([users[index]?.userId]));
    }
  });

  it('B236 turns away who has no token or a bad one, on both transports, in under a second', async () => {
    const watch = await Stopwatch.start();
    for (const transport of ['ws', 'socketio'] as const) {
      const took: number[] = [];
      for (const token of [undefined, 'no.such.token']) {
        const startedAt = performance.now();
        const client = await openClient({ url, transport, ...(token === undefined ? {} : { token }) });
        const { code } = await client.closed;
        took.push(performance.now() - startedAt);
        // Raw: a readable refusal and 1008. Socket.IO: `connect_error`, before the engine is closed.
        expect(code === 1008 || client.refusal !== undefined).toBe(true);
        expect(client.events.filter(({ type }) => type === 'connection_established')).toEqual([]);
      }
      // The faster of the two: the machine may be busy once.
      expect(Math.min(...took)).toBeLessThan(watch.allow(1_000));
    }
  });

  it('keeps a long-polling session on the node that opened it, by its cookie', async () => {
    const sockets = Array.from({ length: 6 }, () => pollingClient(mint().token));
    const welcomes = await Promise.all(sockets.map(connected));
    expect(new Set(welcomes.map(({ server_id }) => server_id)).size).toBeGreaterThan(1);
    const ends = sockets.map((socket) => new Promise((resolve) => socket.once('agent_completed', resolve)));
    for (const socket of sockets) socket.emit('agent_request', { message: 'Hello' });
    for (const end of await Promise.all(ends)) expect(end).toMatchObject({ status: 'completed' });
    for (const socket of sockets) expect(socket.connected).toBe(true);
  });

  it('ends the connection of an event stream at the gateway as soon as its client closes', async () => {
    const { token, userId } = mint();
    const stream = await openStream(`${url}/v1/events`, { token }).opened();
    expect(stream.status).toBe(200);
    const authorization = `Bearer ${await serviceToken('admin', { stack: processes().addresses })}`;
    const connections = async () => {
      const answer = await fetch(`${url}/v1/users/${userId}/connections`, { headers: { authorization } });
      return ((await answer.json()) as { readonly total: number }).total;
    };
    await until(async () => (await connections()) === 1);
    stream.destroy();
    // The gateway sends a comment every 15 s: the first one after the close fails in any case.
    await until(async () => (await connections()) === 0, { timeoutMs: 5_000, label: 'no connection of the client' });
  });

  it('shows that long polling needs the cookie: a client that keeps none does not get through', async () => {
    const attempts = await Promise.allSettled(
      Array.from({ length: 6 }, () => connected(pollingClient(mint().token, { withCredentials: false }))),
    );
    expect(attempts.filter(({ status }) => status === 'rejected')).not.toHaveLength(0);
  });

  it('moves a client of a killed node to another one, where it continues without a gap', async () => {
    const { token } = mint();
    const client = await openClient({ url, token });
    const { server_id, epoch } = await client.welcome();
    client.send('agent_request', { message: 'How is my workload doing?', request_id: 'once' });
    await client.waitFor('agent_started');
    const node = await nodeOf(server_id);
    await node.kill('SIGKILL');
    await client.closed;
    const seen = seqs(client.events);
    const query = { after: String(seen.at(-1)), epoch: String(epoch) };
    const next = await openClient({ url, token, query });
    expect(next.refusal).toBeUndefined();
    expect((await next.welcome()).server_id).not.toBe(server_id);
    await next.waitFor('resumed');
    if (!client.events.some(({ type }) => type === 'agent_completed')) await next.waitFor('agent_completed');
    const all = [...seen, ...seqs(next.events)];
    expect(all).toEqual(upTo(all.length));
    await node.start();
    await allNodesUp();
  }, 60_000);

  it('sends no new client to a draining node, while its polling sessions are notified', async () => {
    const [node] = processes().gateways;
    if (!node) throw new Error('the stack has no gateway');
    // The node notifies its clients one after the other over DRAIN_SECONDS. The polling session is notified in the
    // fourth fifth, when HAProxy has long detected that the node is down. Another client follows it, because the node
    // ends after the last notification.
    const direct = () => openClient({ url: node.url, token: mint().token });
    const { server_id } = await (await direct()).welcome();
    await Promise.all([direct(), direct()]);
    const polling = await pollingSessionOn(server_id);
    await direct();
    const notified = new Promise((resolve) => polling.once('server_draining', resolve));
    const lost = new Promise((_, reject) => {
      polling.once('disconnect', (reason) => reject(new Error(`the polling session was lost: ${reason}`)));
    });
    lost.catch(() => undefined);
    const end = node.kill('SIGTERM');
    await until(async () => (await httpStatus(`${node.url}/health/ready`)) === 503, { label: 'a node that drains' });

    let refused = 0;
    let opened = 0;
    let drained = false;
    void end.then(() => {
      drained = true;
    });
    while (!drained) {
      const client = await openClient({ url, token: mint().token });
      if (client.refusal) refused += 1;
      else {
        opened += 1;
        expect((await client.welcome()).server_id).not.toBe(server_id);
      }
      await client.close();
      // Its requests still reach the node until the notification.
      await Promise.race([notified, lost, polling.emitWithAck('ping', {})]);
    }
    expect({ refused, opened: opened > 10 }).toEqual({ refused: 0, opened: true });
    expect(await notified).toMatchObject({ retry_after_ms: expect.any(Number) });
    expect(await end).toEqual({ code: 0, signal: null });
    await node.start();
    await allNodesUp();
  }, 60_000);

  it('counts failed handshakes by the connecting address, whatever X-Forwarded-For says', async () => {
    /** A handshake without a token from one of this machine's loopback addresses. */
    const attempt = (localAddress: string, claimed: string) => {
      return new Promise<number | undefined>((resolve, reject) => {
        const headers = {
          connection: 'Upgrade',
          upgrade: 'websocket',
          'sec-websocket-version': '13',
          'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
          'x-forwarded-for': claimed,
        };
        const request = get(`${url}/ws/secure`, { localAddress, headers, agent: false });
        request.once('upgrade', (_response, socket) => {
          socket.destroy();
          resolve(101);
        });
        request.once('response', (response) => {
          response.destroy();
          resolve(response.statusCode);
        });
        request.once('error', reject);
      });
    };
    // Each of three nodes counts separately.
    const statuses: (number | undefined)[] = [];
    for (let i = 0; i < 3 * (FAILURES_PER_MINUTE + 1) + 3; i++)
      statuses.push(await attempt('127.0.0.2', `192.0.2.${i}`));
    expect(statuses.slice(0, FAILURES_PER_MINUTE)).toEqual(Array(FAILURES_PER_MINUTE).fill(101));
    expect(statuses.at(-1)).toBe(429);
    expect(await attempt('127.0.0.3', '127.0.0.2')).toBe(101);
  });

  it('answers 503 in the form of Tollgate, with Retry-After, while no node is there', async () => {
    const { gateways } = processes();
    await Promise.all(gateways.map((gateway) => gateway.kill('SIGKILL')));
    await until(async () => (await httpStatus(`${url}/health/ready`)) === 503, { timeoutMs: 10_000 });
    const response = await fetch(`${url}/ws/config`);
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('2');
    expect(await response.json()).toEqual({
      error: publicError(new TollgateError('OVERLOADED', { retryAfterMs: 2_000 })),
    });
    const client = await openClient({ url, token: mint().token });
    expect(client.refusal).toMatchObject({ status: 503, headers: { 'retry-after': '2' } });
    await Promise.all(gateways.map((gateway) => gateway.start()));
    await allNodesUp();
  }, 60_000);
});
