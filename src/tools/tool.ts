import type { Fields } from '../protocol/messages.ts';
import type { ToolInputExchange } from './input-required.ts';
import type { ToolCaller } from './outcome.ts';

/** Context of one execution of a tool. */
export interface ToolContext {
  readonly userId: string;
  readonly caller: ToolCaller;
  readonly threadId: string;
  /** Undefined outside a run. */
  readonly runId?: string;
  /**
   * Unique per call. A call that is repeated after a failure of its worker has the same id, so a tool can derive ids of
   * created objects from it.
   */
  readonly callId: string;
  /** Aborts on cancellation, on timeout, and when another worker has taken over the run. */
  readonly signal: AbortSignal;
  /** Receives progress; undefined when the caller did not request it. */
  readonly onProgress?: ((progress: ToolProgress) => void) | undefined;
  /** Undefined when the caller cannot receive input requests: only MCP supports them. */
  readonly input?: ToolInputExchange | undefined;
}

/** Progress of a tool, in a unit of its choice. */
export interface ToolProgress {
  readonly progress: number;
  readonly total?: number | undefined;
  readonly message?: string | undefined;
}

/** Arguments that are valid against the schema in the catalogue. */
export type ToolArguments = Readonly<Record<string, unknown>>;

/**
 * Executes a tool.
 * @throws TollgateError an error whose text the caller may read; any other error is reported as TOOL_FAILED
 */
export type ToolExecutor = (args: ToolArguments, context: ToolContext) => Promise<Fields>;
