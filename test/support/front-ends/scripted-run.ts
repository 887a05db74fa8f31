import type { RunEvent } from '../../../src/frontends/run-events.ts';
import type { Fields } from '../../../src/protocol/messages.ts';

/**
 * The log of a run with everything that a front end must restore: reasoning, two parallel tools of which one is
 * refused, a step that replaces an interrupted one, and reasoning within a text.
 */
const SCRIPT: readonly (readonly [type: string, fields: Fields])[] = [
  ['agent_started', { message: 'Compare A and B', status: 'started' }],
  ['agent_reasoning', { reasoning: 'Both are needed. ', step: 1 }],
  ['agent_reasoning', { reasoning: 'I call them at once.', step: 1 }],
  ['agent_thinking', { thought: 'Let me ', step: 1 }],
  ['agent_thinking', { thought: 'look.', step: 1, usage_record_id: 'use_1' }],
  ['tool_executing', { tool_name: 'first', tool_call_id: 'call_a', arguments: { of: 'A' } }],
  ['tool_executing', { tool_name: 'second', tool_call_id: 'call_b', arguments: { of: 'B' } }],
  ['tool_completed', { tool_name: 'second', tool_call_id: 'call_b', success: true, result: { b: 2 }, duration_ms: 7 }],
  [
    'tool_completed',
    { tool_name: 'first', tool_call_id: 'call_a', success: false, error: { code: 'PERMISSION_DENIED' } },
  ],
  ['agent_reasoning', { reasoning: 'B has won.', step: 2 }],
  ['agent_thinking', { thought: 'A text that never', step: 2 }],
  ['agent_thinking', { thought: 'B is ', step: 3, replaces_step: 2 }],
  ['agent_reasoning', { reasoning: 'A was refused.', step: 3 }],
  ['agent_thinking', { thought: 'the answer.', step: 3, usage_record_id: 'use_3' }],
];

const COMPLETED: readonly [string, Fields] = [
  'agent_completed',
  { final_response: 'B is the answer.', usage: [{ model: 'm', input_tokens: 20, output_tokens: 5 }], duration_ms: 9 },
];

/** @param rest the last events, with their fields; the end by default */
export function scriptedRun(...rest: readonly (readonly [string, Fields])[]): readonly RunEvent[] {
  return [...SCRIPT, ...(rest.length > 0 ? rest : [COMPLETED])].map(([type, fields], index) => ({
    type,
    // The log of a user interleaves runs, so the numbers of one run have gaps.
    seq: 10 + 3 * index,
    epoch: 'epoch_1',
    fields: { ...fields, run_id: 'run_1', timestamp: new Date(1_700_000_000_000 + 250 * index).toISOString() },
  }));
}
