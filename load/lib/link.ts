import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import { type Fields, isFields } from '../../packages/client/src/transports/transport.ts';
import type { Transport } from './mix.ts';

export interface LinkOptions {
  readonly transport: Transport;
  /** http or https. */
  readonly url: string;
  readonly token: string;
  /** Position to resume from; undefined for a first connection. */
  readonly position: { readonly after: number; readonly epoch: string } | undefined;
}

export interface LinkHandlers {
  /** The transport is open. The welcome, which means that the user is authenticated, follows. */
  readonly opened: () => void;
  readonly event: (type: string, fields: Fields) => void;
  /**
   * Called exactly once, also if the connection never opened. @param why a close code, an HTTP status, a protocol error
   * code, or a Node error code
   */
  readonly closed: (why: string) => void;
}

/** One connection over either transport. */
export interface Link {
  send(type: string, fields: Fields): void;
  /** Closes the socket without a close handshake, like a failing network. */
  cut(): void;
  close(): void;
}

/** A deployment that needs longer than this to open a connection counts as unavailable. */
const OPEN_TIMEOUT_MS = 15_000;

export function openLink(options: LinkOptions, handlers: LinkHandlers): Link {
  const once = onlyOnce(handlers);
  return options.transport === 'websocket' ? openWebSocket(options, once) : openSocketIo(options, once);
}

function onlyOnce(handlers: LinkHandlers): LinkHandlers {
  let isClosed = false;
  return {
    opened: handlers.opened,
    event: (type, fields) => {
      if (!isClosed) handlers.event(type, fields);
    },
    closed: (why) => {
      if (isClosed) return;
      isClosed = true;
      handlers.closed(why);
    },
  };
}

function openWebSocket({ url, token, position }: LinkOptions, { opened, event, closed }: LinkHandlers): Link {
  const query = position ? `?after=${position.after}&epoch=${encodeURIComponent(position.epoch)}` : '';
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws/secure${query}`, {
    headers: { authorization: `Bearer ${token}` },
    perMessageDeflate: false,
    handshakeTimeout: OPEN_TIMEOUT_MS,
  });
  socket.on('open', opened);
  socket.on('message', (data) => {
    const message: unknown = JSON.parse(data.toString());
    if (isFields(message) && typeof message.type === 'string' && isFields(message.payload)) {
      event(message.type, message.payload);
    }
  });
  socket.on('unexpected-response', (_request, response) => {
    response.destroy();
    closed(`HTTP ${response.statusCode}`);
  });
  socket.on('error', (error) => closed(codeOf(error)));
  socket.on('close', (code, reason) => closed(reason.length > 0 ? String(reason) : String(code)));
  return {
    send: (type, payload) => socket.send(JSON.stringify({ type, payload })),
    cut: () => socket.terminate(),
    close: () => socket.close(),
  };
}

function openSocketIo({ transport, url, token, position }: LinkOptions, handlers: LinkHandlers): Link {
  const { opened, event, closed } = handlers;
  const socket = io(url, {
    auth: { token, ...position },
    transports: transport === 'socketio_polling' ? ['polling'] : ['websocket'],
    // In Node this keeps cookies. Without them long polling does not reach its node again behind a load balancer.
    withCredentials: true,
    reconnection: false,
    forceNew: true,
    timeout: OPEN_TIMEOUT_MS,
  });
  let isOpen = false;
  socket.io.on('open', () => {
    isOpen = true;
    opened();
  });
  socket.onAny((type: string, fields: unknown) => event(type, isFields(fields) ? fields : {}));
  socket.on('connect_error', (error) => {
    const data: unknown = 'data' in error ? error.data : undefined;
    closed(isFields(data) ? String(data.code) : isOpen ? error.message : codeOf(error));
    socket.disconnect();
  });
  socket.on('disconnect', (reason) => closed(reason));
  return {
    send: (type, fields) => void socket.emit(type, fields),
    // Closes the engine: Socket.IO sends no disconnect packet, and the server sees a lost transport.
    cut: () => void socket.io.engine.close(),
    close: () => void socket.disconnect(),
  };
}

/** Returns Node's error code (ECONNREFUSED) or the HTTP status of the response; either may be several causes deep. */
function codeOf(error: Error & { code?: unknown; description?: unknown; error?: unknown }): string {
  const status = /Unexpected server response: (\d+)/.exec(error.message)?.[1] ?? error.description;
  if (typeof status === 'string' || typeof status === 'number') return `HTTP ${status}`;
  if (typeof error.code === 'string') return error.code;
  const inner = error.description ?? error.error;
  return isFields(inner) && 'message' in inner ? codeOf(inner as unknown as Error) : error.message;
}
