import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ServerOptions, type WebSocket, WebSocketServer } from 'ws';
import { type Clock, remainingUntil } from '../lib/clock.ts';
import type { LongTasks } from '../limits/long-tasks.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import { refuseUpgrade } from './refusals.ts';

/** Frames above this end the connection with 1009 before they are read; smaller ones are answered. */
export const MAX_FRAME_BYTES = 64 * 1024;
/** A client that does not answer the close frame is cut off after this; `ws` would wait 30 s, Engine.IO as long. */
export const CLOSE_TIMEOUT_MS = 2_000;

/** Browsers and libraries send what is so small in one frame; a proxy may cut it up. */
const MAX_FRAGMENTS = 16;
/** Reads that one frame may take: at the smallest segment of TCP (536 bytes, RFC 9293 section 3.7.1) it takes 123. */
export const MAX_CHUNKS = 1_024;
/** Ten a second: keep-alives and measurements of the way are a hundredth of it. */
const CONTROL_FRAMES_PER_MINUTE = 600;
/**
 * Answers to pings that wait for a client that does not read, 127 bytes each: 76 KB. `ws` counts those of one read as
 * waiting too and ends the connection without a word, so that the bound a minute has to be met before.
 */
const MAX_PENDING_PONGS = CONTROL_FRAMES_PER_MINUTE + 1;
const MINUTE_MS = 60_000;
/** RFC 6455 section 4.1: the names of a handshake's sub-protocols are tokens, each of them once. */
const MALFORMED_PROTOCOLS = 'Sec-WebSocket-Protocol must be a list of different tokens.';

/** What of the options of `ws` 8.23 its types leave out. */
interface BoundedOptions extends ServerOptions {
  readonly closeTimeout: number;
  readonly maxFragments: number;
  readonly maxBufferedChunks: number;
  readonly maxPendingAutoPongs: number;
}

export interface BoundedWebSocketDeps {
  readonly clock: Clock;
  readonly guard: Pick<ConnectionGuard, 'addressOf' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'watch'>;
}

/**
 * A WebSocket server with a bound on everything a client can make it hold or do beside its messages. Engine.IO makes its
 * own server with few options, so that the bounds are in the class and not in a call.
 */
export class BoundedWebSocketServer extends WebSocketServer {
  readonly #deps: BoundedWebSocketDeps;

  constructor(deps: BoundedWebSocketDeps, options: ServerOptions = {}) {
    const bounded: BoundedOptions = {
      ...options,
      noServer: true,
      clientTracking: false,
      maxPayload: MAX_FRAME_BYTES,
      // Compression costs some 300 KB of memory a socket, and events are small.
      perMessageDeflate: false,
      closeTimeout: CLOSE_TIMEOUT_MS,
      maxFragments: MAX_FRAGMENTS,
      maxBufferedChunks: MAX_CHUNKS,
      maxPendingAutoPongs: MAX_PENDING_PONGS,
    };
    super(bounded);
    this.#deps = deps;
    // With a listener `ws` leaves the answer to it. Version, key and method have been checked by then.
    this.on('wsClientError', (_error, socket, request) => {
      const error = new TollgateError('FORMAT_ERROR', { text: MALFORMED_PROTOCOLS });
      deps.guard.refused(request, error);
      refuseUpgrade(socket, error);
    });
  }

  override handleUpgrade(
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    accepted: (webSocket: WebSocket, request: IncomingMessage) => void,
  ): void {
    super.handleUpgrade(request, socket, head, (webSocket) => {
      boundControlFrames(webSocket, this.#deps.clock);
      // All frames of one read are handled at once, by the listener that `ws` has just put there.
      const address = this.#deps.guard.addressOf(request);
      this.#deps.longTasks.watch(socket, 'data', { surface: 'websocket', address: () => address });
      accepted(webSocket as WebSocket, request);
    });
  }
}

/** Pings are answered at once and pongs are free to send: neither meets the limits of messages. */
function boundControlFrames(socket: WebSocket, clock: Clock): void {
  const limiter = new ControlFrameLimiter(clock);
  const count = () => {
    if (!limiter.allows()) socket.close(1008, 'RATE_LIMITED');
  };
  socket.on('ping', count);
  socket.on('pong', count);
}

/** Counts the control frames, or the control packets of Engine.IO, of one client in windows of a minute. */
export class ControlFrameLimiter {
  readonly #clock: Clock;
  #frames = 0;
  #windowEndsAt = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Counts one frame; false above the limit. */
  allows(): boolean {
    if (remainingUntil(this.#clock, this.#windowEndsAt, MINUTE_MS) === 0) {
      this.#frames = 0;
      this.#windowEndsAt = this.#clock.now() + MINUTE_MS;
    }
    this.#frames += 1;
    return this.#frames <= CONTROL_FRAMES_PER_MINUTE;
  }
}
