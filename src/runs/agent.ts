import type { ToolCaller, ToolOutcome } from '../tools/outcome.ts';
import type { ToolArguments } from '../tools/tool.ts';
import type { RunAnswer } from './run-log.ts';
import type { Steps } from './step-log.ts';

/** What an agent can do while it runs. All of it rejects once the run is cancelled, out of time or another worker's. */
export interface AgentContext {
  think(thought: string): Promise<void>;
  /**
   * Runs a tool. Calls may run side by side: they are numbered, and told as executing, in the order in which they are
   * made, and told as completed in the order in which they end.
   */
  call(tool: string, args: ToolArguments): Promise<ToolOutcome>;
  /** What a model says, for agents that ask one. */
  readonly steps: Steps;
  /** Aborts when the run is cancelled or out of time. */
  readonly signal: AbortSignal;
}

export interface AgentTask {
  readonly userId: string;
  readonly runId: string;
  readonly message: string;
  readonly threadId: string;
  /** What a model is told of its part. */
  readonly instructions: string;
  /** The model that the agent wants; undefined for the installation's. */
  readonly model: string | undefined;
  /** The tools the agent may choose from; whether the caller may use them shows when they are called. */
  readonly tools: readonly string[];
  readonly caller: ToolCaller;
}

/**
 * Answers a message. Called again from the beginning when its worker died, it must go the same way as long as the tools
 * give the same results: what it did before is then recognised and not done twice. What it asks of chance, such as a model,
 * it finds in `hands.steps`.
 */
export type Agent = (task: AgentTask, context: AgentContext) => Promise<RunAnswer>;
