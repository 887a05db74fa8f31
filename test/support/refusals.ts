import { type ClientOptions, type Closed, openClient, type ReceivedEvent } from './clients.ts';

/** How a connection was refused, told alike over every transport. */
export interface Refused {
  /** What the client was told: the error frame, or the data of `connect_error`. */
  readonly error: ReceivedEvent['fields'];
  readonly closed: Closed;
  /** From the beginning of the connection to its end. */
  readonly tookMs: number;
}

/** Connects and is refused. @throws Error when it is let in, or refused before anybody could say why */
export async function refused(options: ClientOptions): Promise<Refused> {
  const startedAt = performance.now();
  const client = await openClient(options);
  if (options.transport === 'socketio') {
    if (!client.refusal?.data) throw new Error(`not refused with data: ${JSON.stringify(client.refusal)}`);
    const closed = await client.closed;
    return { error: client.refusal.data, closed, tookMs: performance.now() - startedAt };
  }
  const closed = await client.closed;
  const [error, ...others] = client.events;
  if (error?.type !== 'error' || others.length > 0) {
    throw new Error(`not refused with one error: ${JSON.stringify([client.refusal, client.events])}`);
  }
  return { error: error.fields, closed, tookMs: performance.now() - startedAt };
}
