import { type Child, startChild } from './child.ts';

/** What is measured; `publish` says how an event gets to its users. */
export type TransportName = 'tollgate-ws' | 'tollgate-socket-io' | 'bare-ws' | 'bare-socket-io';

export interface ConnectOrder {
  readonly do: 'connect';
  readonly transport: TransportName;
  readonly url: string;
  /** One connection each. */
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
  /** From the call that publishes to the client's handler, of a sample. */
  readonly latencyMs: readonly number[];
}

export type LoadClient = Child<Order, Delivered>;

/** The process that holds the client sockets and publishes the events, so that servers do nothing but serve. */
export function startLoadClient(redisUrl: string): LoadClient {
  return startChild('./load-client-process.ts', [redisUrl]);
}
