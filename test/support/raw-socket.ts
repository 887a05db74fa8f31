import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { closeAfter } from './open-resources.ts';

/** The opcodes of RFC 6455 section 5.2. */
export const OPCODE = { continuation: 0x0, text: 0x1, binary: 0x2, close: 0x8, ping: 0x9, pong: 0xa } as const;

const HEAD_END = '\r\n\r\n';
const ANSWER_TIMEOUT_MS = 5_000;

export interface RawRequest {
  readonly url: string;
  readonly path: string;
  readonly method?: string;
  /** Overrides headers of a valid upgrade; `undefined` removes one, an array sends it several times. */
  readonly headers?: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export interface RawAnswer {
  readonly status: number;
  /** Keys are lower-case. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface RawFrame {
  readonly opcode: number;
  readonly payload: Buffer;
}

export interface FrameOptions {
  readonly opcode?: number;
  readonly fin?: boolean;
  /** A client must mask; a hostile one need not. */
  readonly masked?: boolean;
  /** The three reserved bits. */
  readonly reserved?: number;
  /** The length in the header, if it differs from the payload's. */
  readonly claimedLength?: number;
}

/**
 * A TCP connection that has sent an upgrade request, for what client libraries do not do: wrong headers, broken frames,
 * silence. It answers neither pings nor closes by itself.
 */
export class RawSocket {
  readonly socket: Socket;
  /** The head of the HTTP response. */
  readonly answer: Promise<RawAnswer>;
  /** Resolves with all bytes after the head when the server has closed the connection. */
  readonly ended: Promise<Buffer>;
  /** Received bytes; frames start after the head. */
  #received = Buffer.alloc(0);

  constructor({ url, path, method = 'GET', headers = {} }: RawRequest) {
    const { hostname, port, host } = new URL(url);
    this.socket = connect(Number(port), hostname, () => this.socket.write(requestHead(method, path, host, headers)));
    this.answer = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no answer within ${ANSWER_TIMEOUT_MS} ms`)), ANSWER_TIMEOUT_MS);
      const look = () => {
        const end = this.#received.indexOf(HEAD_END);
        if (end < 0) return;
        clearTimeout(timer);
        resolve(parseHead(this.#received.subarray(0, end).toString('latin1')));
      };
      this.socket.on('data', (bytes) => {
        this.#received = Buffer.concat([this.#received, bytes]);
        look();
      });
      this.socket.on('close', () => {
        clearTimeout(timer);
        reject(new Error('closed without an answer'));
      });
    });
    this.ended = new Promise((resolve) => this.socket.on('close', () => resolve(this.body)));
    // Either end may cut the connection; the promises report what matters.
    this.socket.on('error', () => {});
    this.answer.catch(() => {});
  }

  /** Everything after the head: the body of a refusal, or the frames. */
  get body(): Buffer {
    const end = this.#received.indexOf(HEAD_END);
    return end < 0 ? Buffer.alloc(0) : this.#received.subarray(end + HEAD_END.length);
  }

  /** The complete frames received so far. */
  get frames(): RawFrame[] {
    return readFrames(this.body);
  }

  /** The code and reason of the server's close frame; undefined without one. */
  get closeFrame(): { code: number; reason: string } | undefined {
    const payload = this.frames.find(({ opcode }) => opcode === OPCODE.close)?.payload;
    if (!payload) return undefined;
    return payload.length < 2
      ? { code: 1005, reason: '' }
      : { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() };
  }

  write(bytes: string | Buffer): void {
    this.socket.write(bytes);
  }

  sendFrame(payload: string | Buffer, options: FrameOptions = {}): void {
    this.write(rawFrame(payload, options));
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/** Opens a raw connection and sends its upgrade request; the end of the test cuts it. */
export function openRawSocket(request: RawRequest): RawSocket {
  const raw = new RawSocket(request);
  closeAfter('test', () => raw.destroy());
  return raw;
}

export function rawFrame(payload: string | Buffer, options: FrameOptions = {}): Buffer {
  const { opcode = OPCODE.text, fin = true, masked = true, reserved = 0 } = options;
  const body = Buffer.from(payload);
  const length = options.claimedLength ?? body.length;
  const head = [(fin ? 0x80 : 0) | (reserved << 4) | opcode, ...lengthBytes(length, masked)];
  if (!masked) return Buffer.concat([Buffer.from(head), body]);
  const mask = randomBytes(4);
  return Buffer.concat([Buffer.from(head), mask, body.map((byte, at) => byte ^ (mask[at % 4] as number))]);
}

function lengthBytes(length: number, masked: boolean): number[] {
  const bit = masked ? 0x80 : 0;
  if (length < 126) return [bit | length];
  if (length < 65_536) return [bit | 126, length >> 8, length & 0xff];
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(length));
  return [bit | 127, ...bytes];
}

/** Parses the frames of a server, which does not mask; omits an incomplete one at the end. */
function readFrames(bytes: Buffer): RawFrame[] {
  const frames: RawFrame[] = [];
  for (let at = 0; at + 2 <= bytes.length; ) {
    const short = bytes.readUInt8(at + 1) & 0x7f;
    const headLength = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (at + headLength > bytes.length) break;
    const length =
      short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2));
    const start = at + headLength;
    if (start + length > bytes.length) break;
    frames.push({ opcode: bytes.readUInt8(at) & 0x0f, payload: bytes.subarray(start, start + length) });
    at = start + length;
  }
  return frames;
}

function requestHead(method: string, path: string, host: string, headers: RawRequest['headers'] = {}): string {
  const all: NonNullable<RawRequest['headers']> = {
    Host: host,
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    ...headers,
  };
  const lines = Object.entries(all).flatMap(([name, value]) =>
    (value === undefined ? [] : [value].flat()).map((one) => `${name}: ${one}`),
  );
  return `${method} ${path} HTTP/1.1\r\n${lines.join('\r\n')}${HEAD_END}`;
}

function parseHead(head: string): RawAnswer {
  const [statusLine = '', ...lines] = head.split('\r\n');
  const headers = lines.map((line) => {
    const colon = line.indexOf(':');
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const;
  });
  return { status: Number(statusLine.split(' ')[1]), headers: Object.fromEntries(headers) };
}
