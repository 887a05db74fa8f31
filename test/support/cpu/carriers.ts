import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { WebSocket } from 'ws';

type Headers = Readonly<Record<string, string>>;

const HEAD_END = '\r\n\r\n';
/** Timeout of an answer that may not come: for a closed session or an ignored frame. */
const QUIET_MS = 40;
const agent = new Agent({ keepAlive: true, maxSockets: 4 });

export interface Request {
  readonly url: string;
  readonly path: string;
  readonly method?: string;
  readonly headers?: Headers;
  readonly body?: string;
}

/** Sends an HTTP request; resolves with its response. */
export async function ask({ url, path, method = 'GET', headers = {}, body }: Request) {
  const sent = httpRequest(new URL(url), { agent, method, path, headers: { ...headers } });
  // A body that is refused before it has been read ends the connection.
  const answered = once(sent, 'response').catch(() => []);
  sent.end(body);
  const [response] = await answered;
  if (!response) return { status: 0, text: '' };
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: Number(response.statusCode), text };
}

/** Sends a literal upgrade request; resolves with the status after the first byte beyond the response head. */
export function upgrade({ url, path, headers = {} }: Request): Promise<number> {
  const { hostname, port, host } = new URL(url);
  const all: Headers = {
    Host: host,
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname);
    let received = '';
    const end = () => {
      socket.destroy();
      resolve(Number(received.split(' ', 2)[1] ?? 0));
    };
    socket.on('error', end).on('close', end);
    socket.on('data', (bytes) => {
      received += bytes.toString('latin1');
      const at = received.indexOf(HEAD_END);
      // A refusal has a body, an accepted upgrade its first frame.
      if (at >= 0 && received.length > at + HEAD_END.length) end();
    });
    socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('\r\n')}${HEAD_END}`, 'latin1');
  });
}

/** An open WebSocket after its first frame; its methods never throw. */
export class Frames {
  readonly #socket: WebSocket;
  readonly #received: string[] = [];
  #waiting: ((frame: string | undefined) => void) | undefined;
  closed = false;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data) => {
      this.#received.push(String(data));
      this.#wake();
    });
    socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
    socket.on('error', () => {});
  }

  static async open({ url, path, headers = {} }: Request): Promise<Frames> {
    const frames = new Frames(new WebSocket(`${url.replace('http', 'ws')}${path}`, { headers }));
    await frames.next();
    return frames;
  }

  /** Resolves with the next frame, for one reader at a time; undefined when the connection is closed. */
  next(): Promise<string | undefined> {
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#wake();
    });
  }

  #wake(): void {
    const waiting = this.#waiting;
    if (!waiting || (this.#received.length === 0 && !this.closed)) return;
    this.#waiting = undefined;
    waiting(this.#received.shift());
  }

  send(frame: string): void {
    if (!this.closed) this.#socket.send(frame);
  }

  /** Reads until a frame matches or the connection ends. */
  async until(fits: (frame: string) => boolean): Promise<string | undefined> {
    for (;;) {
      const frame = await this.next();
      if (frame === undefined || fits(frame)) return frame;
    }
  }

  end(): void {
    this.#socket.terminate();
  }
}

/** Resolves with the result of the promise, or undefined after a short while. */
export async function shortly<T>(promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const quiet = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), QUIET_MS);
  });
  return Promise.race([promise, quiet]).finally(() => clearTimeout(timer));
}
