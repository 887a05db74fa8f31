import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import type { TransportName } from '../clients.ts';
import { decodeFrame, encodeFrame } from '../wire-format.ts';

export interface Message {
  readonly type: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export type MessageMatcher = (message: Message) => boolean;

export interface CallingClientOptions {
  readonly transport: TransportName;
  readonly url: string;
  readonly token: string;
  /** Receives every message from the first one on. */
  readonly onMessage?: (message: Message) => void;
}

/** The connection ended or the answer timed out, so the outcome of the request is unknown. */
export class Lost extends Error {}

const OPEN_TIMEOUT_MS = 10_000;

interface Wire {
  send(type: string, fields: Record<string, unknown>): void;
  end(): void;
}

interface Waiter {
  readonly matches: MessageMatcher;
  readonly resolve: (message: Message) => void;
  readonly reject: (error: Lost) => void;
}

/**
 * A client that keeps only the messages it waits for: a chaos test opens thousands, and each receives all events of its
 * user. States: opening → open → over, whichever side closes.
 */
export class CallingClient {
  readonly #waiters = new Set<Waiter>();
  readonly #onMessage: (message: Message) => void;
  #wire: Wire | undefined;
  #isOver = false;

  private constructor({ onMessage = () => {} }: CallingClientOptions) {
    this.#onMessage = onMessage;
  }

  /** Resolves with a client after its welcome, and the fields of the welcome. @throws Lost without a welcome */
  static async open(options: CallingClientOptions): Promise<{ client: CallingClient; welcome: Message['fields'] }> {
    const client = new CallingClient(options);
    const welcomed = client.next(({ type }) => type === 'connection_established', OPEN_TIMEOUT_MS);
    const hooks = { onMessage: (message: Message) => client.#receive(message), onEnd: () => client.end() };
    client.#wire = options.transport === 'ws' ? webSocket(options, hooks) : socketIo(options, hooks);
    try {
      return { client, welcome: (await welcomed).fields };
    } catch (error) {
      client.end();
      throw error;
    }
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Resolves with the next matching message. @throws Lost if the connection ends before, or after `timeoutMs` */
  next(matches: MessageMatcher, timeoutMs: number): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (this.#isOver) return reject(new Lost('the connection is over'));
      const cleanUp = () => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
      };
      const waiter: Waiter = {
        matches,
        resolve: (message) => {
          cleanUp();
          resolve(message);
        },
        reject: (error) => {
          cleanUp();
          reject(error);
        },
      };
      const timer = setTimeout(() => waiter.reject(new Lost(`no answer within ${timeoutMs} ms`)), timeoutMs);
      this.#waiters.add(waiter);
    });
  }

  /** Sends, and resolves with the next matching message. @throws Lost like `next` */
  request(type: string, fields: Record<string, unknown>, matches: MessageMatcher, timeoutMs: number): Promise<Message> {
    const answer = this.next(matches, timeoutMs);
    if (!this.#isOver) this.#wire?.send(type, fields);
    return answer;
  }

  /** Drops the connection, without a close handshake if the transport allows it. Idempotent. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#wire?.end();
    for (const waiter of [...this.#waiters]) waiter.reject(new Lost('the connection ended'));
  }

  #receive(message: Message): void {
    if (this.#isOver) return;
    this.#onMessage(message);
    for (const waiter of [...this.#waiters]) if (waiter.matches(message)) waiter.resolve(message);
  }
}

interface Hooks {
  readonly onMessage: (message: Message) => void;
  readonly onEnd: () => void;
}

function webSocket({ url, token }: CallingClientOptions, { onMessage, onEnd }: Hooks): Wire {
  const address = new URL('/ws/secure', url.replace(/^http/, 'ws'));
  const socket = new WebSocket(address, { headers: { authorization: `Bearer ${token}` } });
  socket.on('message', (data) => onMessage(decodeFrame(data.toString())));
  // 'close' follows, also for a connection that never opened.
  socket.on('error', () => {});
  socket.on('close', onEnd);
  return {
    send: (type, fields) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(encodeFrame('envelope', type, fields));
    },
    end: () => socket.terminate(),
  };
}

function socketIo({ url, token }: CallingClientOptions, { onMessage, onEnd }: Hooks): Wire {
  const socket = io(url, { auth: { token }, transports: ['websocket'], reconnection: false, forceNew: true });
  socket.onAny((type: string, fields: unknown) => onMessage({ type, fields: fields as Message['fields'] }));
  socket.on('connect_error', onEnd);
  socket.on('disconnect', onEnd);
  return {
    send: (type, fields) => void socket.emit(type, fields),
    end: () => void socket.disconnect(),
  };
}
