import { ProtocolError, ProtocolErrorCode } from '@modelcontextprotocol/server';
import { isObject } from '../lib/json.ts';
import { publicError, type TollgateError } from '../protocol/errors.ts';

export type RpcId = string | number;

/** Converts an error to a JSON-RPC error object: the code from the error table, and all public fields in `data`. */
export function rpcError(error: TollgateError): { code: number; message: string; data: Record<string, unknown> } {
  const { message, ...data } = publicError(error);
  return { code: error.row.jsonrpc, message, data };
}

/** @param id undefined for an error that answers no request; JSON then omits it, because MCP does not allow null */
export function rpcErrorBody(id: RpcId | undefined, error: TollgateError): object {
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

/** Returns the id of the request in this body; undefined if it is no request. */
export function idOf(body: unknown): RpcId | undefined {
  const id = isObject(body) ? body.id : undefined;
  return typeof id === 'string' || typeof id === 'number' ? id : undefined;
}
