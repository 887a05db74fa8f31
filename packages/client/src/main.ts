export type { BackoffOptions } from './backoff.ts';
export type { ConnectionState } from './connection.ts';
export {
  type ClientErrorCode,
  ConnectionStoppedError,
  EventsLostError,
  RunFailedError,
  TollgateError,
} from './errors.ts';
export type {
  DurableEvent,
  ErrorFields,
  Identity,
  InputAnswer,
  InputRequest,
  Limits,
  RunEvent,
  RunEventFields,
  RunEventType,
  TerminalEvent,
  ThreadMessage,
  ThreadSummary,
  ToolDescription,
  ToolResult,
} from './events.ts';
export { type ErrorCode, isTerminalEvent } from './protocol.ts';
export { Run, type RunAccepted, type RunResult, type RunStatus } from './run.ts';
export type { Position, PositionStorage } from './stream-position.ts';
export type { GetToken, Tokens } from './token-source.ts';
export {
  type RunOptions,
  Tollgate,
  type TollgateEvents,
  type TollgateOptions,
  type ToolCallOptions,
} from './tollgate.ts';
export { type SseOptions, sseTransport } from './transports/sse.ts';
export type { Fields, OpenTransport } from './transports/transport.ts';
export { type WebSocketClass, webSocketTransport } from './transports/websocket.ts';
