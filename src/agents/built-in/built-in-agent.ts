import type { AgentContext, AgentTask } from '../../runs/agent.ts';
import type { RunAnswer } from '../../runs/run-end.ts';
import type { ToolOutcome } from '../../tools/outcome.ts';
import { findings } from './findings.ts';
import { type Choice, choose } from './intents.ts';

/** Tools of every plan, used when the caller may use none of the chosen tools. */
const FALLBACK: readonly Choice[] = [
  { tool: 'get_agent_status', args: {} },
  { tool: 'get_thread_history', args: {} },
];

/**
 * Agent without a language model. It chooses tools by the words of the message, calls them, and answers with sentences
 * built from their results. Every figure in the answer comes from a tool result.
 */
export async function builtInAgent(
  { message, tools }: Pick<AgentTask, 'message' | 'tools'>,
  context: Pick<AgentContext, 'think' | 'call'>,
): Promise<RunAnswer> {
  const choices = choose(message, tools);
  await context.think(`The question is about ${topics(choices)}; I ask ${names(choices)}.`);
  const answered = await callAll(choices, context);
  if (!answered.some(({ outcome }) => outcome.success)) {
    const fallback = FALLBACK.filter(
      ({ tool }) => tools.includes(tool) && !choices.some((choice) => choice.tool === tool),
    );
    await context.think(`That is not open to this plan, so I look at what is: ${names(fallback)}.`);
    answered.push(...(await callAll(fallback, context)));
  }
  const sentences = answered.flatMap(({ tool, outcome }) => findings(tool, outcome));
  const useful = answered.filter(({ outcome }) => outcome.success).length;
  await context.think(`${useful} of ${answered.length} tools answered; I put their findings together.`);
  return { final_response: sentences.join(' '), summary: sentences[0] ?? 'Nothing was found.' };
}

interface AnsweredCall {
  readonly tool: string;
  readonly outcome: ToolOutcome;
}

/** Calls the tools one at a time, so that the events have the order of the choices. */
async function callAll(choices: readonly Choice[], context: Pick<AgentContext, 'call'>): Promise<AnsweredCall[]> {
  const answered: AnsweredCall[] = [];
  for (const { tool, args } of choices) answered.push({ tool, outcome: await context.call(tool, args) });
  return answered;
}

const TOPICS: Readonly<Record<string, string>> = {
  analyze_workload: 'your tool usage',
  system_health: 'the health of the system',
  create_thread: 'a new thread',
  get_thread_history: 'your threads',
  list_agents: 'what can be asked here',
  get_agent_status: 'your runs',
};

function topics(choices: readonly Choice[]): string {
  return choices.map(({ tool }) => TOPICS[tool] ?? tool).join(' and ');
}

function names(choices: readonly Choice[]): string {
  return choices.map(({ tool }) => tool).join(' and ');
}
