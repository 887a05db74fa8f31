import type { ToolCaller } from '../catalogue/permissions.ts';
import type { ClientTool } from '../protocol/client-tools.ts';
import type { InputOutcome, InputRequest } from '../protocol/input.ts';
import type { ToolOutcome } from '../tools/outcome.ts';
import type { ToolArguments } from '../tools/tool.ts';
import type { RemoteTurn } from './remote-log.ts';
import type { RunAnswer } from './run-end.ts';
import type { Steps } from './step-log.ts';

/** Operations of a running agent. They reject once the run is cancelled, timed out or taken over by another worker. */
export interface AgentContext {
  think(thought: string): Promise<void>;
  /**
   * Runs a tool. Calls may run concurrently. They are numbered, and `tool_executing` is appended, in the order in which
   * the agent makes them; `tool_completed` is appended in the order in which they end.
   * @param name of the call, unique in the run, for agents that continue a turn instead of repeating it
   */
  call(tool: string, args: ToolArguments, name?: string): Promise<ToolOutcome>;
  /**
   * Calls a tool of the front end that started the run. Numbered like other calls.
   * @param name of the call, unique in the run, for agents that continue a turn instead of repeating it
   * @throws RunSuspended as `requestInput`
   */
  callClientTool(tool: string, args: ToolArguments, name?: string): Promise<ToolOutcome>;
  /**
   * Asks the user, and returns the answer. Requests are numbered in the order in which the agent makes them.
   * @param name of the request, unique in the run, for agents that continue a turn instead of repeating it
   * @throws RunSuspended when there is no answer yet. The agent must let it through: the run then holds no worker, and
   *   the agent is called again from the beginning once there is an answer.
   */
  requestInput(request: InputRequest, name?: string): Promise<InputOutcome>;
  /** Records the steps of a language model, for agents that use one. */
  readonly steps: Steps;
  /** Records the turn of an agent that another server runs. */
  readonly remote: RemoteTurn;
  /** Aborts when the run is cancelled or times out. */
  readonly signal: AbortSignal;
}

export interface AgentTask {
  /** Name of the agent. */
  readonly agent: string;
  readonly userId: string;
  readonly runId: string;
  readonly message: string;
  readonly threadId: string;
  /** Milliseconds since the epoch at which the run times out. */
  readonly deadlineAt: number;
  /** System prompt of the model. */
  readonly instructions: string;
  /** Model of the agent; undefined for the default model of the deployment. */
  readonly model: string | undefined;
  /** Tools that the agent may call. The permissions of the caller are checked with each call. */
  readonly tools: readonly string[];
  /** Tools that the front end of the user executes. None has the name of one of `tools`. */
  readonly clientTools: readonly ClientTool[];
  readonly caller: ToolCaller;
  /** Whether only free tools are available, because the session could not be verified. */
  readonly degraded: boolean;
}

/**
 * Answers a message. After a takeover, the new worker calls the agent again from the beginning. The agent must make the
 * same calls as long as the tools return the same results: completed calls are then replayed, not executed twice.
 * Results that are not deterministic, such as those of a model, are replayed through `context.steps`.
 */
export type Agent = (task: AgentTask, context: AgentContext) => Promise<RunAnswer>;
