import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ServerOptions, type WebSocket, WebSocketServer } from 'ws';
import { type Clock, remainingUntil } from '../lib/clock.ts';
import type { LongTasks } from '../limits/long-tasks.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import { refuseUpgrade } from './refusals.ts';

/** A larger frame closes the connection with 1009 before it is read; smaller ones receive an error. */
export const MAX_FRAME_BYTES = 64 * 1024;
/** Time for the client to answer the close frame, then the socket is destroyed. `ws` and Engine.IO would wait 30 s. */
export const CLOSE_TIMEOUT_MS = 2_000;

/** Frames per message. Browsers and libraries send small messages in one frame; a proxy may fragment them. */
const MAX_FRAGMENTS = 16;
/** Reads per frame. At the smallest TCP segment (536 bytes, RFC 9293 section 3.7.1) a frame of 64 KiB takes 123. */
export const MAX_CHUNKS = 1_024;
/** Ten per second. Keepalives and latency measurements need a hundredth of that. */
const CONTROL_FRAMES_PER_MINUTE = 600;
/**
 * Pongs that are queued for a client that does not read, 127 bytes each: 76 KB. Above it, `ws` closes the connection
 * without a reason, and it counts all pings of one read as queued. One more than the limit per minute, so that a client
 * reaches that limit, which has a reason, first.
 */
const MAX_PENDING_PONGS = CONTROL_FRAMES_PER_MINUTE + 1;
const MINUTE_MS = 60_000;
/** RFC 6455 section 4.1: sub-protocols are tokens without duplicates. */
const MALFORMED_PROTOCOLS = 'Sec-WebSocket-Protocol must be a list of distinct tokens.';

/** Options of `ws` 8.23 that its types lack. */
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
 * WebSocket server that bounds all memory and CPU time that a client can cause apart from its messages. The bounds are
 * in the class rather than in constructor arguments, because Engine.IO constructs its server itself, with few options.
 */
export class BoundedWebSocketServer extends WebSocketServer {
  readonly #deps: BoundedWebSocketDeps;
  readonly #countControlFrame: (this: WebSocket) => void;

  /** @param maxFrameBytes larger frames close the connection with 1009 before they are read */
  constructor(deps: BoundedWebSocketDeps, options: ServerOptions = {}, maxFrameBytes = MAX_FRAME_BYTES) {
    const bounded: BoundedOptions = {
      ...options,
      noServer: true,
      clientTracking: false,
      maxPayload: maxFrameBytes,
      // Compression costs about 300 KB of memory per socket, and events are small.
      perMessageDeflate: false,
      closeTimeout: CLOSE_TIMEOUT_MS,
      maxFragments: MAX_FRAGMENTS,
      maxBufferedChunks: MAX_CHUNKS * Math.ceil(maxFrameBytes / MAX_FRAME_BYTES),
      maxPendingAutoPongs: MAX_PENDING_PONGS,
    };
    super(bounded);
    this.#deps = deps;
    this.#countControlFrame = controlFrameCounter(deps.clock);
    // With this listener, `ws` does not respond itself. It has already checked version, key and method.
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
      // No closure here may outlive this call: it would retain the request.
      socket.off('error', destroyOnError);
      webSocket.on('ping', this.#countControlFrame);
      webSocket.on('pong', this.#countControlFrame);
      // The `data` listener that `ws` has just added processes all frames of one read synchronously.
      const address = this.#deps.guard.addressOf(request);
      this.#deps.longTasks.watch(socket, 'data', { surface: 'websocket', address });
      accepted(webSocket as WebSocket, request);
    });
  }
}

/**
 * Listener of `error` during a handshake: without one, a connection reset would crash the process. A closure would
 * retain the request as long as the socket is open.
 */
export function destroyOnError(this: Duplex): void {
  this.destroy();
}

const LIMITER = Symbol('limiter of control frames');

/**
 * Returns a listener that limits pings, which `ws` answers immediately, and pongs: the message limits do not apply to
 * them. All WebSockets of a server share it.
 */
function controlFrameCounter(clock: Clock): (this: WebSocket & { [LIMITER]?: ControlFrameLimiter }) => void {
  return function () {
    this[LIMITER] ??= new ControlFrameLimiter(clock);
    if (!this[LIMITER].allows()) this.close(1008, 'RATE_LIMITED');
  };
}

/** Counts the control frames, or Engine.IO control packets, of one client per minute. */
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
