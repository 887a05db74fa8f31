import type { Fields } from '../protocol/messages.ts';

/** A message of JSON-RPC 2.0. */
export interface RpcMessage {
  /** Undefined for a notification, which gets no answer. */
  readonly id: string | number | undefined;
  readonly method: string;
  readonly params: Fields;
}

/** Another protocol that is spoken beside ours on the same connection, in JSON-RPC: MCP, at `/ws/mcp`. */
export interface Conversation {
  /** Whether a method is one of that protocol's, as far as this conversation has got. */
  speaks(method: string): boolean;
  /**
   * The frame that answers a message; undefined for none.
   * @param allowed settles when the message limit has been asked; nothing takes effect before
   * @throws TollgateError RATE_LIMITED, OVERLOADED
   */
  answer(message: RpcMessage, allowed: Promise<void>): Promise<string | undefined>;
}
