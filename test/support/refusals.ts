import { type ClientOptions, type Closed, openClient, type ReceivedEvent } from './clients.ts';

/** A refused connection, in the same form for every transport. */
export interface Refused {
  /** The error frame, or the data of `connect_error`. */
  readonly error: ReceivedEvent['fields'];
  readonly closed: Closed;
  /** From the start of the connection to its end. */
  readonly tookMs: number;
}

/** Connects and expects a refusal. @throws Error if the server accepts, or refuses without a readable error */
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
