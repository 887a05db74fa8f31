import { CloseTracker, isFields, type OpenTransport } from './transport.ts';

/**
 * The members of a WebSocket that this client uses. The handlers are `unknown`, so that the WebSocket of browsers, `ws`
 * and other implementations fit, whose event types differ.
 */
export interface WebSocketLike {
  onopen: unknown;
  onmessage: unknown;
  onerror: unknown;
  onclose: unknown;
  send(data: string): void;
  close(code?: number): void;
}
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike;

/** An error code of the gateway in the reason of a close frame. */
const CODE = /^[A-Z][A-Z_]+$/;
/** A frame of this type or size is refused again: the client must not repeat it. */
const FINAL_CLOSES = new Set([1003, 1009, 4001, 4003]);

/** Connects to `/ws/secure`. The token travels as a sub-protocol, because browsers cannot send headers. */
export function webSocketTransport(WebSocket: WebSocketClass): OpenTransport {
  return ({ url, token, position }, handlers) => {
    const target = new URL(`${url.replace(/^http/, 'ws').replace(/\/$/, '')}/ws/secure`);
    if (position) {
      target.searchParams.set('after', String(position.after));
      target.searchParams.set('epoch', position.epoch);
    }
    const tracker = new CloseTracker(handlers);
    const socket = new WebSocket(target.href, ['jwt-auth', `jwt.${base64Url(token)}`]);
    let hint = ' before it opened. Check the URL, and that CORS_ORIGINS of the gateway has the origin of the page.';
    socket.onmessage = ({ data }: { readonly data: unknown }) => {
      hint = '';
      const message = parse(data);
      if (message) tracker.message(message.type, message.fields);
    };
    socket.onclose = ({ code, reason }: { readonly code: number; readonly reason: string }) => {
      tracker.close(`WebSocket closed with ${code}${reason && ` ${reason}`}${hint}`, {
        code: CODE.test(reason) ? reason : undefined,
        final: FINAL_CLOSES.has(code),
      });
    };
    // The close event that follows reports the failure. `ws` requires a listener.
    socket.onerror = () => {};
    return {
      send: (type, payload) => socket.send(JSON.stringify({ type, payload })),
      close: () => {
        tracker.mute();
        socket.close(1000);
      },
    };
  };
}

function parse(data: unknown): { type: string; fields: Record<string, unknown> } | undefined {
  try {
    const message: unknown = JSON.parse(String(data));
    if (!isFields(message) || typeof message.type !== 'string') return undefined;
    return { type: message.type, fields: isFields(message.payload) ? message.payload : {} };
  } catch {
    return undefined;
  }
}

/** JWTs are ASCII, so `btoa` accepts them. */
function base64Url(text: string): string {
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}
