import { isObject } from './dev-access.ts';

type Fields = Readonly<Record<string, unknown>>;

const LONGEST_LINE = 100;

/** One readable line per kind of event; other events are shown by their type alone. */
const SUMMARIES: Readonly<Record<string, (fields: Fields) => string>> = {
  agent_accepted: ({ run_id }) => `${run_id}`,
  agent_started: ({ agent_name, thread_id }) => `${agent_name} in ${thread_id}`,
  agent_thinking: ({ thought }) => `${thought}`,
  agent_reasoning: ({ reasoning }) => `${reasoning}`,
  tool_executing: ({ tool_name, arguments: given }) => `${tool_name} ${JSON.stringify(given ?? {})}`,
  tool_completed: (fields) => {
    const outcome = fields.success ? 'ok' : `failed: ${errorText(fields.error)}`;
    const billed = fields.usage_record_id ? `, billed as ${fields.usage_record_id}` : ', not billed';
    return `${fields.tool_name} ${outcome} in ${fields.duration_ms ?? 0} ms${billed}`;
  },
  agent_completed: ({ duration_ms, tools_used }) => `in ${duration_ms} ms, tools used: ${listText(tools_used)}`,
  agent_failed: (fields) => errorText(fields.error ?? fields),
  error: errorText,
};

/** Formats an event, e.g. `+  12 ms  agent_started    triage in thread_4f…`. */
export function eventLine(type: string, fields: Fields, sinceRequestMs: number): string {
  const time = `+${Math.round(sinceRequestMs).toString().padStart(5)} ms`;
  // The usage record id is not shortened, because users search the bill for it.
  const longest = type === 'tool_completed' ? Number.POSITIVE_INFINITY : LONGEST_LINE;
  return `${time}  ${type.padEnd(16)} ${shorten(SUMMARIES[type]?.(fields) ?? '', longest)}`.trimEnd();
}

/** Formats the error of any event as `CODE: message`. */
export function errorText(error: unknown): string {
  if (!isObject(error)) return String(error ?? 'no reason given');
  const code = error.code === undefined ? '' : `${error.code}: `;
  const agents = Array.isArray(error.agents) ? ` The agents are ${error.agents.join(', ')}.` : '';
  return `${code}${error.message ?? 'no reason given'}${agents}`;
}

function listText(items: unknown): string {
  return Array.isArray(items) && items.length > 0 ? items.join(', ') : 'none';
}

function shorten(text: string, longest: number): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > longest ? `${line.slice(0, longest - 1)}…` : line;
}
