import { openClient, type TestClient } from './clients.ts';
import type { StackAddresses } from './stack.ts';
import { buyTicket } from './tickets.ts';

/** The roads to a place under the cap: two transports, and every moment at which a raw one can say who it is. */
export const TRANSPORT_KINDS = ['header', 'in-band', 'ticket', 'socketio'] as const;
export type TransportKind = (typeof TRANSPORT_KINDS)[number];

/** So soon would a client of Socket.IO come back that thinks it should. */
export const RECONNECT_MS = 20;

/** One client of a user who has more of them than the cap allows. */
export class CappedClient {
  readonly transport: TransportKind;
  readonly client: TestClient;
  /** `performance.now()` at the end of its first connection. */
  closedAt: number | undefined;

  constructor(transport: TransportKind, client: TestClient) {
    this.transport = transport;
    this.client = client;
    void client.closed.then(() => {
      this.closedAt = performance.now();
    });
  }

  /** Undefined for one that lost its place before Socket.IO had welcomed it. */
  get connectionId(): string | undefined {
    const welcome = this.client.events.find(({ type }) => type === 'connection_established');
    return welcome && String(welcome.fields.connection_id);
  }

  /** Whether it has been told that a newer connection took its place. */
  get notified(): boolean {
    const { events, refusal } = this.client;
    const codes = [refusal?.data?.code, ...events.map(({ type, fields }) => type === 'error' && fields.code)];
    return codes.includes('CONNECTION_LIMIT_EXCEEDED');
  }

  /**
   * Resolves when the client has the answer to its admission. The welcome of an in-band client comes before it has
   * authenticated, and says nothing of its admission.
   */
  async admitted(): Promise<void> {
    await this.client.waitFor(this.transport === 'in-band' ? 'auth_success' : 'connection_established');
  }

  /** Why it was refused or lost its connection, where no newer connection was the reason. */
  get failure(): string | undefined {
    const { events, refusal } = this.client;
    if (this.notified) return undefined;
    const error = events.find(({ type }) => type === 'error');
    const code = error?.fields.code ?? refusal?.data?.code ?? refusal?.message;
    if (code !== undefined) return String(code);
    return this.closedAt === undefined ? undefined : 'the connection was lost';
  }

  /** Goes, with a word or without. A client of Socket.IO that loses its connection would come back, as it should. */
  leave(): void {
    if (this.transport === 'socketio' || Math.random() < 0.5) void this.client.close();
    else this.client.terminate();
  }

  /** How often it has been let in: more than once if it came back by itself. */
  get welcomes(): number {
    return this.client.events.filter(({ type }) => type === 'connection_established').length;
  }
}

/** Sets out at once; what has to be bought for it is there already. Resolves when it is open or refused. */
export async function connectBy(
  transport: TransportKind,
  url: string,
  token: string,
  ticket?: string,
): Promise<CappedClient> {
  const options = {
    header: { token },
    'in-band': { path: '/ws' },
    ticket: { path: '/ws', query: { ticket: ticket ?? '' } },
    socketio: { transport: 'socketio', token, reconnectAfterMs: RECONNECT_MS },
  } as const;
  const client = await openClient({ url, ...options[transport] });
  if (transport === 'in-band') client.send('auth', { token });
  return new CappedClient(transport, client);
}

export interface Route {
  readonly transport: TransportKind;
  readonly node: number;
  /** Leaves again as soon as it is open, whatever became of its place. */
  readonly leaves?: boolean;
}

/** As many clients as there are routes, all at the same time. */
export async function connectAll(of: StackAddresses, token: string, routes: readonly Route[]): Promise<CappedClient[]> {
  const planned = await Promise.all(
    routes.map(async ({ transport, node, leaves }) => {
      const url = of.gateways[node]?.url ?? '';
      return { transport, url, leaves, ticket: transport === 'ticket' ? await buyTicket(token, { url }) : undefined };
    }),
  );
  return Promise.all(
    planned.map(async ({ transport, url, leaves, ticket }) => {
      const capped = await connectBy(transport, url, token, ticket);
      if (leaves) capped.leave();
      return capped;
    }),
  );
}
