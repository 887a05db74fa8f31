import type { ToolCaller } from '../catalogue/permissions.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import type { InputExchange, InputRequests } from '../upstreams/input-requests.ts';

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
  /** Receives progress; undefined when the caller did not request it. Not called for the repetition of a call. */
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

/** Input capabilities and answers of the caller of a tool. */
export interface ToolInputExchange extends InputExchange {
  /** Completed input rounds of this call, including the answer in this request; 0 for a new call. */
  readonly answered: number;
}

export interface ToolInputRequests extends InputRequests {
  /** Input rounds of the call, including this one. */
  readonly round: number;
}

/** Thrown when a tool needs input from its caller. The call continues when the answers arrive. */
export class InputRequired extends TollgateError {
  readonly inputRequests: ToolInputRequests;

  constructor(inputRequests: ToolInputRequests) {
    super('INPUT_REQUIRED');
    this.name = 'InputRequired';
    this.inputRequests = inputRequests;
  }
}

/** Arguments that are valid against the schema in the catalogue. */
export type ToolArguments = Readonly<Record<string, unknown>>;

/**
 * Executes a tool.
 * @throws TollgateError an error whose text the caller may read; any other error is reported as TOOL_FAILED
 */
export type ToolExecutor = (args: ToolArguments, context: ToolContext) => Promise<Fields>;
