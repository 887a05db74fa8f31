import type { RemoteSettings } from '../../catalogue/remote-agents.ts';
import type { AgentContext, AgentTask } from '../../runs/agent.ts';
import type { ReportedTokens } from '../../runs/remote-log.ts';
import { asNumber, asObject } from '../model/json.ts';
import type { ThreadMessage } from '../model/prompt.ts';
import type { Budget } from './budget.ts';
import type { RemoteClient } from './client.ts';
import { RemoteFault } from './fault.ts';

/** How a remote agent reaches the tools of the gateway, with the rights of the run. */
export interface ToolAccess {
  readonly url: string;
  readonly token: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly names: readonly string[];
}

/** One turn of a remote agent, with all that a kind needs to execute it. */
export interface Turn<Settings extends RemoteSettings = RemoteSettings> {
  readonly task: AgentTask;
  readonly context: AgentContext;
  readonly settings: Settings;
  readonly client: RemoteClient;
  readonly budget: Budget;
  /** Earlier messages of the thread, oldest first, without that of the task. */
  readonly history: readonly ThreadMessage[];
  /** Undefined if the agent has no tools, or the address of the gateway is not configured. */
  readonly toolAccess: ToolAccess | undefined;
  /** Counts an event that the kind does not use. */
  readonly ignored: (type: string) => void;
}

export interface TurnAnswer {
  readonly text: string;
  /** Undefined if the agent reported none. */
  readonly tokens: ReportedTokens | undefined;
  readonly finish?: 'length' | 'content_filter' | 'refusal';
}

/** Executes a turn of one kind of remote agent. @throws RemoteFault; the reason of an aborted signal */
export type TurnRunner<Settings extends RemoteSettings> = (turn: Turn<Settings>) => Promise<TurnAnswer>;

/**
 * Decides how a turn begins: from its start, after the position that an earlier worker stored, or from its start again.
 * @param resumable whether the kind can continue at a stored position
 * @param position `RemoteTurn.position` to continue at; default: all events in the log
 * @throws RemoteFault not_resumable for a turn that must not be executed twice
 */
export function beginTurn(
  { context, settings }: Turn,
  resumable: boolean,
  position?: number,
): 'started' | 'resumed' | 'restarted' {
  const { remote } = context;
  if (!remote.takenOver) return 'started';
  if (resumable && remote.cursor !== undefined) {
    remote.resume(position);
    return 'resumed';
  }
  if (!settings.repeatable) throw new RemoteFault('not_resumable', 'the worker of the turn died');
  remote.restart();
  return 'restarted';
}

/** Reads token counts under the names that protocols use; undefined if there are none. */
export function tokensOf(usage: unknown): ReportedTokens | undefined {
  const counts = asObject(usage);
  const count = (...names: string[]) => {
    const found = names.map((name) => asNumber(counts?.[name])).find((value) => value !== undefined && value >= 0);
    return found === undefined ? undefined : Math.min(Math.ceil(found), MAX_TOKENS);
  };
  const input = count('input_tokens', 'inputTokens', 'prompt_tokens');
  const output = count('output_tokens', 'outputTokens', 'completion_tokens');
  return input === undefined && output === undefined ? undefined : { input: input ?? 0, output: output ?? 0 };
}

/** Bound of a reported count, so that sums remain exact numbers. */
const MAX_TOKENS = 1_000_000_000;

export function sumOfTokens(counts: readonly (ReportedTokens | undefined)[]): ReportedTokens | undefined {
  const reported = counts.filter((one) => one !== undefined);
  if (reported.length === 0) return undefined;
  return {
    input: reported.reduce((sum, { input }) => sum + input, 0),
    output: reported.reduce((sum, { output }) => sum + output, 0),
  };
}
