import type { Fields } from '../../protocol/messages.ts';

/** Extra information of an event, which clients merge into the message or tool call that the event builds. */
interface Metadata {
  /** `epoch` and `seq` are the position in the event log. */
  readonly tollgate: Fields & { readonly epoch?: string; readonly seq?: number };
}

interface Base {
  /** Milliseconds since 1970. Clients reject a run with any other form. */
  readonly timestamp?: number;
  readonly metadata?: Metadata;
}

export interface ToolCallEntry {
  readonly id: string;
  readonly type: 'function';
  readonly function: { readonly name: string; readonly arguments: string };
  readonly metadata?: Metadata;
}

/** A message that the events of a run build. */
export type RunMessage = {
  readonly id: string;
  readonly metadata?: Metadata;
} & (
  | { readonly role: 'assistant'; readonly content?: string; readonly toolCalls?: readonly ToolCallEntry[] }
  | { readonly role: 'reasoning'; readonly content: string }
  | { readonly role: 'tool'; readonly content: string; readonly toolCallId: string }
);

export type ToolMessage = Extract<RunMessage, { readonly role: 'tool' }>;

/** Any message of a conversation: those before a run come from the thread or from the client. */
export interface HistoryMessage {
  readonly id: string;
  readonly role: string;
  readonly [field: string]: unknown;
}

/** Tokens of one model, as billed. */
export interface TokenUsage {
  readonly model: string;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly totalTokens: number;
}

/** What a run needs of its user before it can continue. */
export interface Interrupt {
  readonly id: string;
  readonly reason: string;
  readonly message: string;
  readonly toolCallId?: string;
  /** JSON Schema of the payload that answers it. */
  readonly responseSchema: Fields;
  readonly expiresAt: string;
  readonly metadata: Metadata;
}

/** Why a run ended. Clients before AG-UI 1.0 reject all but `success`. */
export type Outcome =
  | { readonly type: 'success'; readonly pendingToolCallIds?: readonly string[] }
  | { readonly type: 'cancelled' }
  | { readonly type: 'interrupt'; readonly interrupts: readonly Interrupt[] };

/** The events of AG-UI 1.0 that Tollgate sends. */
export type AgUiEvent = Base &
  (
    | {
        readonly type: 'RUN_STARTED';
        readonly threadId: string;
        readonly runId: string;
        readonly protocolVersion?: string;
      }
    | {
        readonly type: 'RUN_FINISHED';
        readonly threadId: string;
        readonly runId: string;
        readonly outcome?: Outcome;
        readonly usage?: readonly TokenUsage[];
      }
    | {
        readonly type: 'RUN_ERROR';
        readonly message: string;
        readonly code: string;
        readonly usage?: readonly TokenUsage[];
      }
    | { readonly type: 'TEXT_MESSAGE_START'; readonly messageId: string; readonly role: 'assistant' }
    | { readonly type: 'TEXT_MESSAGE_CONTENT'; readonly messageId: string; readonly delta: string }
    | { readonly type: 'TEXT_MESSAGE_END'; readonly messageId: string }
    | { readonly type: 'REASONING_START' | 'REASONING_END' | 'REASONING_MESSAGE_END'; readonly messageId: string }
    | { readonly type: 'REASONING_MESSAGE_START'; readonly messageId: string; readonly role: 'reasoning' }
    | { readonly type: 'REASONING_MESSAGE_CONTENT'; readonly messageId: string; readonly delta: string }
    | {
        readonly type: 'TOOL_CALL_START';
        readonly toolCallId: string;
        readonly toolCallName: string;
        readonly parentMessageId: string;
      }
    | { readonly type: 'TOOL_CALL_ARGS'; readonly toolCallId: string; readonly delta: string }
    | { readonly type: 'TOOL_CALL_END'; readonly toolCallId: string }
    | {
        readonly type: 'TOOL_CALL_RESULT';
        readonly messageId: string;
        readonly toolCallId: string;
        readonly content: string;
        readonly role: 'tool';
      }
    | { readonly type: 'CUSTOM'; readonly name: string; readonly value: unknown }
    | { readonly type: 'STATE_SNAPSHOT'; readonly snapshot: unknown }
    | { readonly type: 'STATE_DELTA'; readonly delta: readonly unknown[] }
    | {
        readonly type: 'ACTIVITY_SNAPSHOT';
        readonly messageId: string;
        readonly activityType: string;
        readonly content: Fields;
      }
    | {
        readonly type: 'ACTIVITY_DELTA';
        readonly messageId: string;
        readonly activityType: string;
        readonly patch: readonly unknown[];
      }
    | { readonly type: 'MESSAGES_SNAPSHOT'; readonly messages: readonly (HistoryMessage | RunMessage)[] }
  );
