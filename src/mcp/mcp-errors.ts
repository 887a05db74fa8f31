import { ProtocolError, ProtocolErrorCode } from '@modelcontextprotocol/server';
import { publicError, type TollgateError } from '../protocol/errors.ts';

export type RpcId = string | number | null;

/** A refusal as the error object of JSON-RPC: the code of the table's row, and every public field in `data`. */
export function rpcError(error: TollgateError): { code: number; message: string; data: Record<string, unknown> } {
  const { message, ...data } = publicError(error);
  return { code: error.row.jsonrpc, message, data };
}

export function rpcErrorBody(id: RpcId, error: TollgateError): object {
  return { jsonrpc: '2.0', id, error: rpcError(error) };
}

/** What the SDK turns into that error object; of anything else it would show the client the text. */
export function protocolError(error: TollgateError): ProtocolError {
  const { code, message, data } = rpcError(error);
  return new ProtocolError(code, message, data);
}

/** A parameter that is wrong by this server's own rules: -32602, as for those that are wrong by MCP's. */
export function invalidParams(text: string): ProtocolError {
  return new ProtocolError(ProtocolErrorCode.InvalidParams, text, { code: 'FORMAT_ERROR', retryable: false });
}

/** The id that an answer to this body must carry; null where none can be told (JSON-RPC 2.0 section 5). */
export function idOf(body: unknown): RpcId {
  const id = typeof body === 'object' && body !== null && 'id' in body ? body.id : null;
  return typeof id === 'string' || typeof id === 'number' ? id : null;
}
