import { randomBytes } from 'node:crypto';
import { type Client, connectSocketIo, connectWs, type Fields } from './lib/clients.ts';
import { Deployment } from './lib/deployment.ts';
import { type BenchOptions, progress, type Report, runAsProgram } from './lib/report.ts';
import { percentile } from './lib/statistics.ts';

const NODES = 3;
const CONNECTIONS = 1_000;
const IN_SEQUENCE = 200;
const AT_ONCE = 100;
/** Concurrent connects during the set-up. */
const CONNECTING = 25;

/** The admin actions, and the message that each of the user's connections must receive. */
const ADMIN_ACTIONS = ['session', 'token', 'user', 'block', 'plan'] as const;
type AdminAction = (typeof ADMIN_ACTIONS)[number];
const NOTICE: Record<AdminAction, { readonly event: string; readonly fields: Fields }> = {
  session: { event: 'error', fields: { code: 'TOKEN_REVOKED' } },
  token: { event: 'error', fields: { code: 'TOKEN_REVOKED' } },
  user: { event: 'error', fields: { code: 'TOKEN_REVOKED' } },
  block: { event: 'error', fields: { code: 'USER_BLOCKED' } },
  plan: { event: 'plan_changed', fields: { plan: 'free' } },
};

/** A user with one connection per node and transport, all with one token. */
interface User {
  readonly id: string;
  readonly sid: string;
  readonly jti: string;
  readonly clients: readonly Client[];
}

/** Milliseconds from the start of the admin call until a connection received its message, one value per connection. */
export interface RevocationTimes {
  readonly connections: number;
  readonly inSequence: Readonly<Record<AdminAction, readonly number[]>>;
  readonly atOnce: readonly number[];
  /** Mean milliseconds from the invalidation in the stream to its effect, as each node measures it. */
  readonly lagOfNodes: readonly number[];
}

export interface RevocationOptions {
  readonly connections: number;
  readonly inSequence: number;
  readonly atOnce: number;
}

/**
 * Opens the connections on three nodes and performs admin actions on their users, at each node in turn.
 * @throws Error if a connection receives nothing or another message
 */
export async function measureRevocation(options: RevocationOptions): Promise<RevocationTimes> {
  const deployment = await Deployment.start();
  try {
    const nodes = await Promise.all(Array.from({ length: NODES }, () => deployment.gateway()));
    const urls = nodes.map(({ url }) => url);
    const admin = new Admin(urls, deployment.serviceToken('admin'));
    const users = await connectUsers(deployment, urls, Math.ceil(options.connections / NODES));
    progress(`revocation: ${users.length * NODES} connections`);

    const inSequence: Record<AdminAction, number[]> = { session: [], token: [], user: [], block: [], plan: [] };
    for (let at = 0; at < options.inSequence; at++) {
      const action = ADMIN_ACTIONS[at % ADMIN_ACTIONS.length] ?? 'session';
      inSequence[action].push(...(await admin.time(action, users.pop())));
    }
    await admin.warmUp(options.atOnce);
    const atOnce = await Promise.all(
      Array.from({ length: options.atOnce }, (_, at) => {
        return admin.time(ADMIN_ACTIONS[at % ADMIN_ACTIONS.length] ?? 'session', users.pop());
      }),
    );
    for (const { clients } of users) for (const client of clients) client.close();
    const lagOfNodes = await Promise.all(urls.map(meanLag));
    return { connections: options.connections, inSequence, atOnce: atOnce.flat(), lagOfNodes };
  } finally {
    await deployment.close();
  }
}

async function connectUsers(deployment: Deployment, urls: readonly string[], count: number): Promise<User[]> {
  const users: User[] = [];
  for (let from = 0; from < count; from += CONNECTING) {
    const batch = Array.from({ length: Math.min(CONNECTING, count - from) }, async (_, at): Promise<User> => {
      const [id, sid, jti] = [`revoked-${from + at}`, ...[1, 2].map(() => randomBytes(12).toString('base64url'))];
      const token = deployment.token(id ?? '', 'pro', { sid, jti });
      const connecting = urls.map((url, node) => {
        return (from + at + node) % 2 === 0 ? connectWs(url, token) : connectSocketIo(url, token);
      });
      return { id: id ?? '', sid: sid ?? '', jti: jti ?? '', clients: await Promise.all(connecting) };
    });
    users.push(...(await Promise.all(batch)));
  }
  return users;
}

/** An operator, who calls one node after the other. */
class Admin {
  readonly #urls: readonly string[];
  readonly #headers: Readonly<Record<string, string>>;
  #calls = 0;

  constructor(urls: readonly string[], token: string) {
    this.#urls = urls;
    this.#headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  }

  async time(action: AdminAction, user: User | undefined): Promise<number[]> {
    if (!user) throw new Error('more admin actions than users');
    const { event, fields } = NOTICE[action];
    const startedAt = performance.now();
    const notified = user.clients.map(async (client) => {
      const received = await client.next(event);
      const tookMs = performance.now() - startedAt;
      for (const [name, value] of Object.entries(fields)) {
        if (received[name] !== value) throw new Error(`${action}: received ${JSON.stringify(received)}`);
      }
      return tookMs;
    });
    const [, ...times] = await Promise.all([this.#act(action, user), ...notified]);
    for (const client of user.clients) client.close();
    return times;
  }

  /** Opens as many HTTP connections as there are concurrent calls, so that TCP set-up is not measured. */
  async warmUp(calls: number): Promise<void> {
    await Promise.all(Array.from({ length: calls }, () => this.#call('GET', '/v1/nodes')));
  }

  async #act(action: AdminAction, { id, sid, jti }: User): Promise<void> {
    if (action === 'plan') return this.#call('PUT', `/v1/users/${id}/plan`, { plan: 'free' });
    if (action === 'block') return this.#call('POST', `/v1/users/${id}/block`, {});
    const bodies = { session: { sid }, token: { jti }, user: { user_id: id } };
    return this.#call('POST', '/v1/tokens/revoke', bodies[action]);
  }

  async #call(method: string, path: string, fields?: Fields): Promise<void> {
    const url = this.#urls[this.#calls++ % this.#urls.length];
    const body = fields === undefined ? {} : { body: JSON.stringify(fields) };
    const response = await fetch(`${url}${path}`, { method, headers: this.#headers, ...body });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    await response.arrayBuffer();
  }
}

async function meanLag(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const value = (suffix: string) => {
    return Number(new RegExp(`^tollgate_announcement_lag_seconds_${suffix} (\\S+)$`, 'm').exec(text)?.[1]);
  };
  return (value('sum') / value('count')) * 1000;
}

export async function revocation({ quick }: BenchOptions): Promise<Report> {
  const options = quick
    ? { connections: 60, inSequence: 10, atOnce: 10 }
    : { connections: CONNECTIONS, inSequence: IN_SEQUENCE, atOnce: AT_ONCE };
  const times = await measureRevocation(options);
  const row = (name: string, values: readonly number[]) => {
    const figures = [percentile(values, 0.5), percentile(values, 0.99), Math.max(...values)];
    return [name, String(values.length), ...figures.map((ms) => ms.toFixed(1))];
  };
  const { inSequence, atOnce, lagOfNodes } = times;
  return {
    name: 'Revocation',
    about: [
      `${NODES} nodes, ${options.connections} connections, half raw WebSocket and half Socket.IO, one of each user on every node.`,
      `${options.inSequence} admin actions one after the other, then ${options.atOnce} at once, over the admin routes of all nodes; from the`,
      'beginning of the call until each connection of the user has the error or the event.',
    ].join('\n'),
    tables: [
      {
        title: 'Milliseconds until a connection received the message',
        header: ['action', 'connections', 'p50', 'p99', 'max'],
        rows: [
          ...ADMIN_ACTIONS.map((action) => row(action, inSequence[action])),
          row('all, one after the other', Object.values(inSequence).flat()),
          row('all, at once', atOnce),
        ],
      },
      {
        title: 'Mean milliseconds from the stream to the effect on a node, both parts of the run',
        header: ['node', 'ms'],
        rows: lagOfNodes.map((ms, at) => [String(at + 1), ms.toFixed(1)]),
      },
    ],
    data: times,
  };
}

if (import.meta.main) await runAsProgram([revocation]);
