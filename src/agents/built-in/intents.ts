import { withoutTrailing } from '../../lib/text.ts';
import type { ToolArguments } from '../../tools/tool.ts';

/** A tool that matches a message, and its arguments. */
export interface Choice {
  readonly tool: string;
  readonly args: ToolArguments;
}

interface Intent {
  readonly tool: string;
  /** Weight of each word stem that indicates the tool. */
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

const MAX_TITLE_LENGTH = 120;
const OPENING_MARKS = '"“\'';
const CLOSING_MARKS = '"”\'';
const TITLE_WORD = /\b(?:about|called|named|titled)\s/i;

/** UTF-16 units of a message that the agent reads. Its answer depends on a few words, not on a pasted document. */
export const MAX_READ_LENGTH = 2_000;

/** Maximum number of tools per message. */
const CHOICES = 2;
const HOURS: readonly (readonly [RegExp, number])[] = [
  [/\bmonth/, 720],
  [/\bweek/, 168],
  [/\byesterday|\btwo days/, 48],
  [/\bhour\b/, 1],
];

/**
 * Returns the available tools that match the message best. For a message without a match, returns the tools for the
 * caller's usage and runs. Reads only the first `MAX_READ_LENGTH` characters.
 */
export function choose(whole: string, available: readonly string[]): Choice[] {
  const message = whole.slice(0, MAX_READ_LENGTH);
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

const WORD_CHARACTER = /\w/;

function score(text: string, { stems }: Intent): number {
  let total = 0;
  for (const [stem, weight] of Object.entries(stems)) {
    if (hasWordWith(stem, text)) total += weight;
  }
  return total;
}

/** Returns whether a word of the text begins with the stem: "run" does not match "prune". */
function hasWordWith(stem: string, text: string): boolean {
  for (let at = text.indexOf(stem); at >= 0; at = text.indexOf(stem, at + 1)) {
    if (at === 0 || !WORD_CHARACTER.test(text.charAt(at - 1))) return true;
  }
  return false;
}

function hoursIn(message: string): number {
  return HOURS.find(([pattern]) => pattern.test(message.toLowerCase()))?.[1] ?? 24;
}

/**
 * Returns the quoted text, else the rest of the line after "about", "called", "named" or "titled", else the message.
 */
function titleIn(message: string): string {
  const title = (quotedIn(message) ?? afterTitleWord(message) ?? message).trim();
  return withoutTrailing(title, '.?!').slice(0, MAX_TITLE_LENGTH) || 'New thread';
}

/** Returns the text between the first pair of quotation marks that are not adjacent. Takes linear time. */
function quotedIn(message: string): string | undefined {
  let opened: number | undefined;
  for (let at = 0; at < message.length; at++) {
    const mark = message.charAt(at);
    const closes = CLOSING_MARKS.includes(mark);
    if (opened !== undefined && closes && at > opened + 1) return message.slice(opened + 1, at);
    if (OPENING_MARKS.includes(mark) && (opened === undefined || closes)) opened = at;
    else if (closes) opened = undefined;
  }
  return undefined;
}

function afterTitleWord(message: string): string | undefined {
  const found = TITLE_WORD.exec(message);
  if (!found) return undefined;
  const [line = ''] = message
    .slice(found.index + found[0].length)
    .trimStart()
    .split('\n', 1);
  return line || undefined;
}
