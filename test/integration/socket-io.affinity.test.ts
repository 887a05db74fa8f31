import { createServer, request as httpRequest } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { io, type Socket } from 'socket.io-client';
import { openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** The package exports no types; as far as used here, they equal those of the current version. */
const { io: io40 }: { io: typeof io } = createRequire(import.meta.url)('socket.io-client-4.0');

/** A proxy without affinity. Every request goes to the node that `route` names. */
async function startProxy(route: (method: string, path: string, at: number) => number): Promise<{
  readonly url: string;
  readonly seen: string[];
}> {
  const seen: string[] = [];
  const server = createServer((incoming, outgoing) => {
    const { method = '', url = '', headers } = incoming;
    const node = route(method, url, seen.length);
    seen.push(`${method} ${url.includes('sid=') ? 'session' : 'open'} ${node}`);
    const forwarded = httpRequest(new URL(url, nodeUrl(node)), { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    forwarded.on('error', () => outgoing.destroy());
    incoming.pipe(forwarded);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeAfter('test', async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

interface Outcome {
  readonly socket: Socket;
  readonly refusals: { readonly message: string; readonly data?: { readonly code: string } }[];
}

function connect(url: string, create: typeof io, token: string): Outcome {
  const socket = create(url, {
    transports: ['polling'],
    auth: { token },
    reconnectionDelay: 50,
    reconnectionDelayMax: 50,
    forceNew: true,
  });
  closeAfter('test', () => void socket.disconnect());
  const refusals: Outcome['refusals'] = [];
  socket.on('connect_error', (error: Error) => refusals.push(error));
  return { socket, refusals };
}

const isOpening = (path: string) => !path.includes('sid=');
const ROUTES: [string, (method: string, path: string, at: number) => number][] = [
  ['polls reach another node', (method, path) => (method === 'GET' && !isOpening(path) ? 1 : 0)],
  ['POSTs reach another node', (method) => (method === 'POST' ? 1 : 0)],
  ['all requests of the session reach another node', (_method, path) => (isOpening(path) ? 0 : 1)],
  ['requests go to two nodes in turn', (_method, _path, at) => at % 2],
  ['requests go to three nodes in turn', (_method, _path, at) => at % 3],
];

let leases: Awaited<ReturnType<typeof openLeases>>;
beforeAll(async () => {
  leases = await openLeases();
});

describe('long polling without affinity', () => {
  it.each(ROUTES)('is refused once, readably, and stops when %s', async (_what, route) => {
    const { url, seen } = await startProxy(route);
    const { token, userId } = mintToken();
    const { socket, refusals } = connect(url, io, token);
    const first = await until(() => refusals[0]);
    expect(first).toMatchObject({ message: expect.stringContaining('affinity'), data: { code: 'AFFINITY_REQUIRED' } });
    expect(socket.active).toBe(false);
    // A client that went on would try again 50 ms later, before another client has been refused in turn.
    const opened = () => seen.filter((request) => request.startsWith('GET open')).length;
    const before = opened();
    const other = connect(url, io, mintToken().token);
    await until(() => other.refusals.length > 0);
    expect([refusals.length, opened() - before]).toEqual([1, 1]);
    await leases.untilReleased(userId);
  });

  it.each(ROUTES)('is refused readably for a client of 2021 when %s', async (_what, route) => {
    const { url } = await startProxy(route);
    // This version tries again after every refusal, whatever its reason.
    const { refusals } = connect(url, io40, mintToken().token);
    const first = await until(() => refusals[0]);
    expect(first).toMatchObject({ message: expect.stringContaining('affinity'), data: { code: 'AFFINITY_REQUIRED' } });
  });

  it('is refused readably for pages of another origin', async () => {
    const origin = 'http://app.example.test';
    const polling = '/socket.io/?EIO=4&transport=polling';
    const opened = await fetch(`${nodeUrl(0)}${polling}`, { headers: { origin } });
    const { sid } = JSON.parse((await opened.text()).slice(1));
    const answer = await fetch(`${nodeUrl(1)}${polling}&sid=${sid}`, { headers: { origin } });
    expect([answer.status, answer.headers.get('access-control-allow-origin')]).toEqual([200, origin]);
    expect(await answer.text()).toContain('AFFINITY_REQUIRED');
  });
});

describe('long polling', () => {
  it('works with affinity', async () => {
    const { url } = await startProxy(() => 1);
    const { socket, refusals } = connect(url, io, mintToken().token);
    await until(() => socket.connected);
    expect(refusals).toEqual([]);
  });

  it('keeps the answer of Engine.IO for a session that no node has: its client reconnects', async () => {
    const answer = await fetch(`${nodeUrl(0)}/socket.io/?EIO=4&transport=polling&sid=unknown`);
    expect([answer.status, await answer.json()]).toEqual([400, { code: 1, message: 'Session ID unknown' }]);
  });

  it('that moves to another node when it is older is not ended: its client reconnects there', async () => {
    let node = 0;
    const { url } = await startProxy(() => node);
    const { socket, refusals } = connect(url, io, mintToken().token);
    await until(() => socket.connected);
    const [first, openedAt] = [socket.id, performance.now()];
    await until(() => performance.now() - openedAt > 5_000, { timeoutMs: 10_000 });
    node = 1;
    socket.emit('ping');
    await until(() => socket.connected && socket.id !== first);
    expect(refusals).toEqual([]);
  }, 15_000);
});
