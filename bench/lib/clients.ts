import { io, type Socket } from 'socket.io-client';
import { WebSocket } from 'ws';

export type Fields = Record<string, unknown>;

/** A benchmark client over either transport. */
export interface Client {
  send(type: string, fields?: Fields): void;
  /** Resolves with the next event of this type after the call. */
  next(type: string): Promise<Fields>;
  close(): void;
}

const TIMEOUT_MS = 20_000;

/** Pending waits of a client, by event type. */
class Waits {
  readonly #waits = new Map<string, ((fields: Fields) => void)[]>();

  next(type: string): Promise<Fields> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${type} within ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
      const wait = (fields: Fields) => {
        clearTimeout(timer);
        resolve(fields);
      };
      this.#waits.set(type, [...(this.#waits.get(type) ?? []), wait]);
    });
  }

  resolve(type: string, fields: Fields): void {
    const waits = this.#waits.get(type) ?? [];
    this.#waits.delete(type);
    for (const wait of waits) wait(fields);
  }
}

/**
 * Connects to `/ws` with a token in the header or a ticket in the URL; resolves with the welcome.
 * @param token undefined for no credential
 */
export async function connectWs(
  url: string,
  token?: string,
  ticket?: string,
): Promise<Client & { readonly welcome: Fields }> {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const query = ticket === undefined ? '' : `?ticket=${ticket}`;
  const socket = new WebSocket(`${url.replace('http', 'ws')}/ws${query}`, { headers, perMessageDeflate: false });
  const waits = new Waits();
  socket.on('message', (data) => {
    const { type, ...fields } = JSON.parse(String(data)) as Fields & { type: string };
    waits.resolve(type, fields);
  });
  const failed = new Promise<never>((_, reject) => socket.once('error', reject));
  failed.catch(() => undefined);
  return {
    welcome: await Promise.race([waits.next('connection_established'), failed]),
    send: (type, fields = {}) => socket.send(JSON.stringify({ type, ...fields })),
    next: (type) => waits.next(type),
    close: () => socket.close(),
  };
}

/** Connects to the Socket.IO endpoint; resolves with the welcome. */
export async function connectSocketIo(url: string, token: string): Promise<Client & { readonly welcome: Fields }> {
  const socket: Socket = io(url, { auth: { token }, transports: ['websocket'], forceNew: true, reconnection: false });
  const waits = new Waits();
  socket.onAny((type: string, fields: Fields) => waits.resolve(type, fields));
  const failed = new Promise<never>((_, reject) => socket.once('connect_error', reject));
  failed.catch(() => undefined);
  return {
    welcome: await Promise.race([waits.next('connection_established'), failed]),
    send: (type, fields = {}) => socket.emit(type, fields),
    next: (type) => waits.next(type),
    close: () => socket.close(),
  };
}
