import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import { isObject } from './dev-access.ts';

export type ChatTransport = 'ws' | 'socketio';

/** The events that `npm run chat` needs of a connection of either transport. */
export interface ChatHandlers {
  readonly onEvent: (type: string, fields: Record<string, unknown>) => void;
  /** The connection failed or closed, with a reason for the user. Only the first call counts. */
  readonly onEnd: (reason: string) => void;
}

export interface ChatConnection {
  send(type: string, fields: Record<string, unknown>): void;
  close(): void;
}

export function openChatConnection(
  { transport, url, token }: { transport: ChatTransport; url: string; token: string },
  handlers: ChatHandlers,
): ChatConnection {
  return transport === 'ws' ? openWebSocket(url, token, handlers) : openSocketIo(url, token, handlers);
}

function openWebSocket(url: string, token: string, { onEvent, onEnd }: ChatHandlers): ChatConnection {
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/ws/secure`, {
    headers: { authorization: `Bearer ${token}` },
  });
  socket.on('message', (data) => {
    const message: unknown = JSON.parse(data.toString());
    if (!isObject(message) || typeof message.type !== 'string') return;
    onEvent(message.type, isObject(message.payload) ? message.payload : {});
  });
  socket.on('error', (error) => onEnd(error.message || 'nobody answers there'));
  socket.on('close', (code, reason) => onEnd(`closed with ${code}${reason.length > 0 ? ` ${reason}` : ''}`));
  return {
    send: (type, payload) => socket.send(JSON.stringify({ type, payload })),
    close: () => socket.close(),
  };
}

function openSocketIo(url: string, token: string, { onEvent, onEnd }: ChatHandlers): ChatConnection {
  const socket = io(url, { auth: { token }, transports: ['websocket'], reconnection: false, forceNew: true });
  socket.onAny((type: string, fields: unknown) => onEvent(type, isObject(fields) ? fields : {}));
  socket.on('connect_error', (error) => {
    const data = 'data' in error && isObject(error.data) ? `${error.data.code}: ` : '';
    onEnd(`${data}${error.message}`);
  });
  socket.on('disconnect', (reason) => onEnd(reason));
  return {
    send: (type, fields) => void socket.emit(type, fields),
    close: () => void socket.disconnect(),
  };
}
