import type { RunAnswer, ToolOutcome } from './run-log.ts';
import type { ClaimedRun } from './runs.ts';
import type { ToolArguments } from './tools/tool.ts';

/** What an agent can do while it runs. Both reject once the run is cancelled, out of time or no longer this worker's. */
export interface AgentHands {
  think(thought: string): Promise<void>;
  call(tool: string, args: ToolArguments): Promise<ToolOutcome>;
}

export interface AgentTask {
  readonly message: string;
  readonly threadId: string;
  /** The tools the agent may choose from; whether the caller may use them shows when they are called. */
  readonly tools: readonly string[];
  readonly caller: ClaimedRun['caller'];
}

/**
 * Answers a message. Called again from the beginning when its worker died, it must go the same way as long as the tools
 * give the same results: what it did before is then recognised and not done twice.
 */
export type Agent = (task: AgentTask, hands: AgentHands) => Promise<RunAnswer>;
