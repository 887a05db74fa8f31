import { ProtocolError, ProtocolErrorCode } from '@modelcontextprotocol/server';
import { isObject } from '../lib/is-object.ts';
import { publicError, type TollgateError } from '../protocol/errors.ts';

export type RpcId = string | number | null;

/** Converts an error to a JSON-RPC error object: the code from the error table, and all public fields in `data`. */
export function rpcError(error: TollgateError): { code: number; message: string; data: Record<string, unknown> } {
  const { message, ...data } = publicError(error);
  return { code: error.row.jsonrpc, message, data };
}

export function rpcErrorBody(id: RpcId, error: TollgateError): object {
  return { jsonrpc: '2.0', id, error: rpcError(error) };
}

/** Wraps an error for the SDK, which sends it as `rpcError`. Of other errors the SDK sends the internal message. */
export function protocolError(error: TollgateError): ProtocolError {
  const { code, message, data } = rpcError(error);
  return new ProtocolError(code, message, data);
}

/** Error -32602 for a parameter that violates a rule of this server, as for one that violates MCP. */
export function invalidParams(text: string): ProtocolError {
  return new ProtocolError(ProtocolErrorCode.InvalidParams, text, { code: 'FORMAT_ERROR', retryable: false });
}

/** Returns the id for the response to this body; null if it cannot be determined (JSON-RPC 2.0 section 5). */
export function idOf(body: unknown): RpcId {
  const id = isObject(body) ? body.id : undefined;
  return typeof id === 'string' || typeof id === 'number' ? id : null;
}
