import { type Child, startChild } from './child.ts';

/** What is measured; `publish` states how an event reaches its users. */
export type TransportName = 'tollgate-ws' | 'tollgate-socket-io' | 'bare-ws' | 'bare-socket-io';

export interface ConnectOrder {
  readonly do: 'connect';
  readonly transport: TransportName;
  readonly url: string;
  /** One connection per token. */
  readonly tokens: readonly string[];
  readonly userIds: readonly string[];
}

export interface DeliverOrder {
  readonly do: 'deliver';
  readonly transport: TransportName;
  readonly events: number;
  readonly perSecond: number;
}

export type Order = ConnectOrder | DeliverOrder | { readonly do: 'disconnect' };

export interface Delivered {
  readonly received: number;
  /** From the publish call to the client's handler, for a sample of events. */
  readonly latencyMs: readonly number[];
}

export type LoadClient = Child<Order, Delivered>;

/**
 * Starts the process that owns the client sockets and publishes the events, so that the server processes only serve.
 */
export function startLoadClient(redisUrl: string): LoadClient {
  return startChild('./load-client-process.ts', [redisUrl]);
}
