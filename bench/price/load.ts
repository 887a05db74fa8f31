import { startChild } from '../lib/child.ts';

/** How events of a target reach its users. */
export type Publishing = 'append' | 'p1k' | 'p4r';

export interface LoadSettings {
  readonly redisUrl: string;
  readonly publishing: Publishing;
  /** The checkout whose writer appends durable events. */
  readonly root: string;
  readonly transport: 'ws' | 'io';
}

/** An order to the process of the clients; each reports its result when it is done. */
export type LoadOrder =
  | { readonly do: 'connect'; readonly url: string; readonly users: readonly { id: string; token: string }[] }
  | { readonly do: 'pings'; readonly count: number; readonly perSecond: number; readonly among?: number }
  /** `among` restricts it to the users that connected first. */
  | { readonly do: 'deliver'; readonly count: number; readonly perSecond: number; readonly among?: number }
  | { readonly do: 'turns'; readonly count: number; readonly perSecond: number }
  /** Reconnects every client that loses its connection to another server, and ends when `count` of them are back. */
  | { readonly do: 'storm'; readonly url: string; readonly count: number }
  | { readonly do: 'disconnect' };

export interface LoadAnswer {
  /** Duration of the order, ms. */
  readonly ms: number;
  /** Of turns: from the request to the first event, ms. */
  readonly firstEventMs: readonly number[];
}

/** A rate of 0 sends as fast as answers return. */
export const SATURATED = 0;

/** Starts the process that has the client sockets and publishes, so that the measured processes only serve. */
export function startLoad(settings: LoadSettings) {
  return startChild<LoadOrder, LoadAnswer>('../price/load-process.ts', [JSON.stringify(settings)]);
}

export type Load = ReturnType<typeof startLoad>;
