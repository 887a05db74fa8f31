import type { Fields } from '../protocol/messages.ts';

/** A message of JSON-RPC 2.0. */
export interface RpcMessage {
  /** Undefined for a notification, which gets no answer. */
  readonly id: string | number | undefined;
  readonly method: string;
  readonly params: Fields;
}

/** A message that is to be answered. */
export type RpcRequest = RpcMessage & { readonly id: string | number };

/** Another protocol that is spoken beside ours on the same connection, in JSON-RPC: MCP, at `/ws/mcp`. */
export interface RpcDispatcher {
  /** Whether a method is one of that protocol's, as far as this conversation has got. */
  handles(method: string): boolean;
  /** Takes note of a message, whatever the limits say of it: what ends work must not be kept waiting by that work. */
  observe(message: RpcMessage): void;
  /**
   * The frame that answers a request; undefined for none.
   * @param allowed settles when the message limit has been asked; nothing takes effect before
   * @throws TollgateError RATE_LIMITED, OVERLOADED
   */
  answer(request: RpcRequest, allowed: Promise<void>): Promise<string | undefined>;
}
