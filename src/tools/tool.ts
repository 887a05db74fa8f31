import type { Fields } from '../protocol/messages.ts';
import type { ToolInputExchange } from './input-required.ts';
import type { ToolCaller } from './outcome.ts';

/** For whom and within what a tool works. */
export interface ToolContext {
  readonly userId: string;
  readonly caller: ToolCaller;
  readonly threadId: string;
  /** Undefined outside a run. */
  readonly runId?: string;
  /** Unique per call, and the same when a call is made again after its worker died: what a tool makes can follow from it. */
  readonly callId: string;
  /** Aborts when the run is cancelled, out of time or given to another worker. */
  readonly signal: AbortSignal;
  /** Where somebody listens to how far a tool has come. */
  readonly onProgress?: ((progress: ToolProgress) => void) | undefined;
  /** Undefined where nobody can be asked: on every road but MCP's. */
  readonly input?: ToolInputExchange | undefined;
}

/** How far a tool has come, in whatever it counts. */
export interface ToolProgress {
  readonly progress: number;
  readonly total?: number | undefined;
  readonly message?: string | undefined;
}

/** Arguments that the catalogue's schema has accepted. */
export type ToolArguments = Readonly<Record<string, unknown>>;

/**
 * What a built-in tool does.
 * @throws TollgateError a refusal that the caller may read; anything else is reported as TOOL_FAILED
 */
export type ToolExecutor = (args: ToolArguments, context: ToolContext) => Promise<Fields>;
