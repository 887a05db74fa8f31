import type { MessageLimit } from '../limits/message-limit.ts';
import type { Fields } from '../protocol/messages.ts';

/** A JSON-RPC 2.0 message. */
export interface RpcMessage {
  /** Undefined for a notification, which gets no answer. */
  readonly id: string | number | undefined;
  readonly method: string;
  readonly params: Fields;
}

export type RpcRequest = RpcMessage & { readonly id: string | number };

/** Dispatcher of the MCP messages on a JSON-RPC connection (`/ws/mcp`), beside Tollgate's own messages. */
export interface RpcDispatcher {
  /** Whether a method belongs to MCP in the current state of the MCP session. */
  handles(method: string): boolean;
  /** Observes a message before the limits apply, so that a cancellation does not wait for the work that it cancels. */
  observe(message: RpcMessage): void;
  /**
   * Returns the frame that answers a request; undefined for none.
   * @param limit nothing takes effect before it has allowed the request
   * @throws TollgateError RATE_LIMITED, OVERLOADED
   */
  answer(request: RpcRequest, limit: MessageLimit): Promise<string | undefined>;
}
