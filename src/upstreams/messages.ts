import type { JSONRPCMessage, RequestId, Transport, TransportSendOptions } from '@modelcontextprotocol/client';
import type { Clock } from '../lib/clock.ts';
import { NO_RESULT } from './faults.ts';

/**
 * Maximum number of messages per second and connection that are not responses. Far above the progress messages of all
 * calls in flight, far below what would exhaust the process.
 */
const MAX_MESSAGES_PER_SECOND = 500;
/** Reserved for implementation-defined server errors (JSON-RPC 2.0 section 5.1). */
const SERVER_ERROR = -32000;

/**
 * Calls `flooded` once when more than `MAX_MESSAGES_PER_SECOND` messages that are not responses arrive in a second, and
 * drops all later messages.
 */
export function boundMessages(transport: Transport, clock: Clock, flooded: () => void): void {
  const receive = transport.onmessage;
  const send = transport.send.bind(transport);
  let [second, count, over] = [0, 0, false];
  /** Requests without a response, including abandoned ones, whose response may still arrive. */
  let requested = 0;
  transport.send = (message, options) => {
    if ('id' in message && 'method' in message) requested += 1;
    return send(message, options);
  };
  const isExpected = (message: JSONRPCMessage) => {
    const expected = !('method' in message) && requested > 0;
    if (expected) requested -= 1;
    return expected;
  };
  transport.onmessage = (message, extra) => {
    if (over) return;
    const now = Math.floor(clock.now() / 1_000);
    if (now !== second) [second, count] = [now, 0];
    if (!isExpected(message)) count += 1;
    over = count > MAX_MESSAGES_PER_SECOND;
    if (over) flooded();
    else receive?.(message, extra);
  };
}

/** Fails a request whose stream ends without its result. The SDK would otherwise wait until the timeout. */
export function endUnanswered(transport: Transport): void {
  const unanswered = new Set<RequestId>();
  const receive = transport.onmessage;
  const send = transport.send.bind(transport);
  transport.onmessage = (message, extra) => {
    if ('id' in message && !('method' in message) && message.id !== undefined) unanswered.delete(message.id);
    receive?.(message, extra);
  };
  transport.send = (message, options: TransportSendOptions = {}) => {
    // A subscription handles the end of its stream itself.
    if (!('id' in message && 'method' in message) || options.onRequestStreamEnd) return send(message, options);
    const { id } = message;
    unanswered.add(id);
    options.requestSignal?.addEventListener('abort', () => unanswered.delete(id), { once: true });
    const onRequestStreamEnd = () => {
      if (!unanswered.delete(id)) return;
      const error = { code: SERVER_ERROR, message: 'the response has no result', data: NO_RESULT };
      receive?.({ jsonrpc: '2.0', id, error });
    };
    const sent = send(message, { ...options, onRequestStreamEnd });
    sent.catch(() => unanswered.delete(id));
    return sent;
  };
}
