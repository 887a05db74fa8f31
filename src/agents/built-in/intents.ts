import type { ToolArguments } from '../tools/tool.ts';

/** A tool that fits a message, and what to ask it. */
export interface Choice {
  readonly tool: string;
  readonly args: ToolArguments;
}

interface Intent {
  readonly tool: string;
  /** Stems of words that speak for the tool, with how much each says. */
  readonly stems: Readonly<Record<string, number>>;
  readonly args?: (message: string) => ToolArguments;
}

const INTENTS: readonly Intent[] = [
  {
    tool: 'analyze_workload',
    stems: {
      workload: 3,
      usage: 3,
      spend: 3,
      cost: 3,
      bill: 3,
      expens: 3,
      optimi: 2,
      analy: 2,
      trend: 2,
      performan: 2,
      market: 1,
      insight: 1,
      tool: 1,
    },
    args: (message) => ({ hours: hoursIn(message) }),
  },
  {
    tool: 'system_health',
    stems: { health: 3, system: 2, outage: 3, slow: 2, latenc: 2, redis: 3, queue: 2, down: 1, worker: 2, monitor: 2 },
  },
  {
    tool: 'create_thread',
    stems: { 'new thread': 4, 'create a thread': 5, 'start a thread': 5, 'open a thread': 5, 'new conversation': 4 },
    args: (message) => ({ title: titleIn(message) }),
  },
  {
    tool: 'get_thread_history',
    stems: { thread: 2, histor: 3, conversation: 2, earlier: 2, discuss: 1, remember: 2, chat: 1 },
  },
  {
    tool: 'list_agents',
    stems: { 'which agent': 4, 'what can you': 4, 'who are you': 4, help: 2, agents: 2, abilit: 2 },
  },
  {
    tool: 'get_agent_status',
    stems: { run: 2, running: 2, status: 2, progress: 3, finished: 2, failed: 2, pending: 2, 'my agent': 3 },
  },
];

/** How many tools answer one message. */
const CHOICES = 2;
const HOURS: readonly (readonly [RegExp, number])[] = [
  [/\bmonth/, 720],
  [/\bweek/, 168],
  [/\byesterday|\btwo days/, 48],
  [/\bhour\b/, 1],
];

/**
 * The tools that fit a message best, among those the agent has. A message that fits none is answered with what is
 * always worth knowing: the caller's usage and runs.
 */
export function choose(message: string, available: readonly string[]): Choice[] {
  const text = message.toLowerCase();
  const ranked = INTENTS.filter(({ tool }) => available.includes(tool))
    .map((intent) => ({ intent, score: score(text, intent) }))
    .filter((candidate) => candidate.score > 0)
    .toSorted((a, b) => b.score - a.score)
    .slice(0, CHOICES)
    .map(({ intent }) => ({ tool: intent.tool, args: intent.args?.(message) ?? {} }));
  if (ranked.length > 0) return ranked;
  return ['analyze_workload', 'get_agent_status', 'list_agents']
    .filter((tool) => available.includes(tool))
    .slice(0, CHOICES)
    .map((tool) => ({ tool, args: {} }));
}

function score(text: string, { stems }: Intent): number {
  let total = 0;
  for (const [stem, weight] of Object.entries(stems)) {
    // A stem counts at the beginning of a word only: "run" is not in "prune".
    if (new RegExp(`(?<!\\w)${stem}`).test(text)) total += weight;
  }
  return total;
}

function hoursIn(message: string): number {
  return HOURS.find(([pattern]) => pattern.test(message.toLowerCase()))?.[1] ?? 24;
}

/** What stands in quotes or after "about", "called", "named"; else the whole message. */
function titleIn(message: string): string {
  const quoted =
    /["“']([^"”']+)["”']/.exec(message)?.[1] ?? /\b(?:about|called|named|titled)\s+(.+)$/i.exec(message)?.[1];
  return (
    (quoted ?? message)
      .trim()
      .replace(/[.?!]+$/, '')
      .slice(0, 120) || 'New thread'
  );
}
