import { openClient, type TestClient } from './clients.ts';
import type { StackAddresses } from './stack.ts';
import { buyTicket } from './tickets.ts';

/**
 * The ways to a connection under the cap: two transports, and each moment at which a raw WebSocket can authenticate.
 */
export const TRANSPORT_KINDS = ['header', 'in-band', 'ticket', 'socketio'] as const;
export type TransportKind = (typeof TRANSPORT_KINDS)[number];

/** Reconnect delay of a Socket.IO client that believes it may reconnect. */
export const RECONNECT_MS = 20;

/** One client of a user who has more clients than the cap allows. */
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

  /** Undefined for a client that was evicted before Socket.IO had sent the welcome. */
  get connectionId(): string | undefined {
    const welcome = this.client.events.find(({ type }) => type === 'connection_established');
    return welcome && String(welcome.fields.connection_id);
  }

  /** Whether the client received the error that a newer connection replaced it. */
  get notified(): boolean {
    const { events, refusal } = this.client;
    const codes = [refusal?.data?.code, ...events.map(({ type, fields }) => type === 'error' && fields.code)];
    return codes.includes('CONNECTION_LIMIT_EXCEEDED');
  }

  /**
   * Resolves when the client has the reply to its admission. The welcome of an in-band client precedes its
   * authentication and says nothing about its admission.
   */
  async admitted(): Promise<void> {
    await this.client.waitFor(this.transport === 'in-band' ? 'auth_success' : 'connection_established');
  }

  /** The reason of a refusal or close other than a newer connection; undefined otherwise. */
  get failure(): string | undefined {
    const { events, refusal } = this.client;
    if (this.notified) return undefined;
    const error = events.find(({ type }) => type === 'error');
    const code = error?.fields.code ?? refusal?.data?.code ?? refusal?.message;
    if (code !== undefined) return String(code);
    return this.closedAt === undefined ? undefined : 'the connection was lost';
  }

  /**
   * Disconnects, with or without a close handshake. A Socket.IO client whose connection breaks reconnects by itself.
   */
  leave(): void {
    if (this.transport === 'socketio' || Math.random() < 0.5) void this.client.close();
    else this.client.terminate();
  }

  /** Number of admissions: more than one if the client reconnected by itself. */
  get welcomes(): number {
    return this.client.events.filter(({ type }) => type === 'connection_established').length;
  }
}

/**
 * Connects at once, because its ticket or token is already available. Resolves when the client is connected or refused.
 */
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
  /** Disconnects as soon as it is open, whatever its admission. */
  readonly leaves?: boolean;
}

/** Connects one client per route, all at the same time. */
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
