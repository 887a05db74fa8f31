import type { TerminalEventType } from './protocol.ts';

/** Fields of every durable event of a run. */
export interface RunEventFields {
  readonly event_id: string;
  /** Position in the user's event log, from 1 without gaps. */
  readonly seq: number;
  readonly run_id: string | null;
  readonly thread_id: string | null;
  readonly request_id: string | null;
  readonly user_id: string;
  readonly agent_name: string | null;
  /** ISO 8601, UTC. */
  readonly timestamp: string;
}

/** The error of a failed tool or run. */
export interface ErrorFields {
  readonly code: string;
  readonly message: string;
  readonly retryable?: boolean;
  readonly retry_after_ms?: number;
  readonly [field: string]: unknown;
}

/**
 * What a run asks its user: an approval of a tool call, one of `choices`, a form (an object that fits `schema`), or the
 * result of a call of a tool that a front end executes (`{ result }` or `{ error }`). The
 * fields of the call are absent if no call needs the answer.
 */
export interface InputRequest {
  readonly input_id: string;
  readonly kind: 'approval' | 'choice' | 'form' | 'tool';
  readonly message: string;
  /** ISO 8601, UTC. */
  readonly expires_at: string;
  readonly choices?: readonly string[];
  /** JSON Schema. */
  readonly schema?: Readonly<Record<string, unknown>>;
  readonly tool_name?: string;
  readonly tool_call_id?: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
}

/**
 * `accept` with the content of a choice (`{ choice }`), a form or a tool (`{ result }` or `{ error }`), `decline`, or
 * `cancel` for no decision.
 */
export interface InputAnswer {
  readonly action: 'accept' | 'decline' | 'cancel';
  readonly content?: Readonly<Record<string, unknown>>;
}

type InputEnd = Pick<InputRequest, 'input_id' | 'kind' | 'tool_name' | 'tool_call_id'>;

interface RunEventTable {
  agent_started: { readonly message: string };
  agent_thinking: {
    readonly thought: string;
    readonly step: number;
    /** Step whose text no longer counts, because it was interrupted. */
    readonly replaces_step?: number;
    readonly usage_record_id?: string;
  };
  /** Text in which a model thinks before it answers; not part of the answer. */
  agent_reasoning: {
    readonly reasoning: string;
    readonly step: number;
    readonly replaces_step?: number;
    readonly usage_record_id?: string;
  };
  /** State of an agent on another server: whole, or as a JSON Patch to the state before. */
  agent_state: { readonly snapshot?: unknown; readonly delta?: readonly unknown[] };
  /** What an agent on another server is doing, for display: whole, or as a JSON Patch. */
  agent_activity: {
    readonly activity_id: string;
    readonly activity_type: string;
    readonly content?: unknown;
    readonly patch?: readonly unknown[];
  };
  tool_executing: {
    readonly tool_name: string;
    readonly tool_call_id: string;
    readonly arguments: Readonly<Record<string, unknown>>;
    /** A tool of an agent on another server, which Tollgate neither executes nor bills. */
    readonly remote?: true;
  };
  tool_completed: {
    readonly tool_name: string;
    readonly tool_call_id: string;
    readonly success: boolean;
    readonly result?: unknown;
    readonly error?: ErrorFields;
    readonly duration_ms: number;
    /** Null for a refused call, which is not charged. */
    readonly usage_record_id?: string | null;
    readonly remote?: true;
  };
  /** The run waits for `Tollgate.respond`. */
  input_requested: InputRequest;
  input_received: InputEnd & Pick<InputAnswer, 'action'>;
  input_expired: InputEnd;
  agent_completed: {
    readonly final_response: string;
    readonly summary: string;
    readonly duration_ms: number;
    readonly tools_used: readonly string[];
  };
  agent_failed: { readonly error: ErrorFields; readonly duration_ms: number };
  agent_cancelled: { readonly duration_ms: number };
}

/** An event of a run. A newer gateway may send types that this version does not list: ignore them. */
export type RunEvent = {
  [T in keyof RunEventTable]: { readonly type: T } & RunEventFields & RunEventTable[T];
}[keyof RunEventTable];
export type RunEventType = keyof RunEventTable;

/** A durable event of the user: of a run, of none, or of a backend, which chooses the type. */
export type DurableEvent =
  | RunEvent
  | ({ readonly type: string & {}; readonly seq: number } & Readonly<Record<string, unknown>>);

export type TerminalEvent = Extract<RunEvent, { type: TerminalEventType }>;

/** The user of a connection, as the welcome describes it. */
export interface Identity {
  readonly userId: string;
  readonly plan: string;
  readonly permissions: readonly string[];
  /** The connection's own thread, which runs without `thread` belong to. */
  readonly threadId: string;
  readonly limits: Limits;
}

export interface Limits {
  readonly max_connections_per_user: number;
  /** Bytes. */
  readonly max_message_size: number;
  /** Per minute. */
  readonly max_message_rate: number;
  /** Seconds. */
  readonly heartbeat_interval: number;
  /** Seconds. */
  readonly connection_timeout: number;
}

/** The outcome of a tool call outside a run. */
export interface ToolResult {
  readonly tool: string;
  readonly tool_call_id: string;
  readonly success: boolean;
  readonly result?: unknown;
  readonly error?: ErrorFields;
  readonly duration_ms: number;
  readonly usage_record_id: string | null;
  /** The outcome of an earlier call with the same idempotency key. */
  readonly repeated: boolean;
}

export interface ThreadSummary {
  readonly thread_id: string;
  readonly title: string | null;
  readonly created_at: string;
  readonly updated_at: string;
}

export interface ThreadMessage {
  readonly message_id: string;
  readonly role: 'user' | 'assistant';
  readonly text: string;
  readonly run_id: string | null;
  readonly at: string;
}

export interface ToolDescription {
  readonly name: string;
  readonly description: string;
  readonly permission: string;
  readonly units: number;
  /** JSON Schema. */
  readonly arguments: Readonly<Record<string, unknown>>;
  /** False if the deployment has no executor for the tool. */
  readonly available: boolean;
}
