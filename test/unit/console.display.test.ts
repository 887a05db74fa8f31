import { describe, expect, it } from '@jest/globals';
import { csv } from '../../console/src/lib/csv.ts';
import { bytes, duration, NONE } from '../../console/src/lib/format.ts';
import { shorten } from '../../console/src/lib/shorten.ts';
import { visible } from '../../console/src/lib/visible.ts';
import {
  answerOf,
  type Entry,
  linesOf,
  openInputs,
  type Turn,
  withEvent,
} from '../../console/src/pages/playground/turns.ts';
import type { RunEvent } from '../../packages/client/src/events.ts';

const EMPTY: Turn = {
  requestId: 'req_1',
  message: 'hello',
  sentAt: 0,
  runId: undefined,
  status: 'sending',
  entries: [],
  problem: undefined,
};
const FIELDS = { run_id: 'run_1', request_id: 'req_1', thread_id: null, user_id: 'u1', agent_name: null };

function turnOf(events: readonly Record<string, unknown>[]): Turn {
  return events.reduce<Turn>(
    (turn, event, index) => withEvent(turn, { ...FIELDS, seq: index + 1, ...event } as unknown as RunEvent, index),
    EMPTY,
  );
}

describe('what the console displays', () => {
  it.each([
    [0.4, '0.4 ms'],
    [45, '45 ms'],
    [1_400, '1.4 s'],
    [125_000, '2 min 5 s'],
    [3_600_000, '1 h'],
    [93_600_000, '1 d 2 h'],
    [null, NONE],
    [Number.NaN, NONE],
  ])('shows %s ms as "%s"', (ms, text) => {
    expect(duration(ms)).toBe(text);
  });

  it('shows bytes in units of 1,024', () => {
    expect([512, 1_536, 5 * 2 ** 30].map(bytes)).toEqual(['512 B', '1.5 KiB', '5 GiB']);
  });

  it('cuts a line of 64 KiB, and never between the halves of a character', () => {
    expect(shorten('x'.repeat(65_536), 10)).toBe(`${'x'.repeat(10)}…`);
    expect(shorten('ab😀c', 3)).toBe('ab…');
  });

  it('shows the hidden characters of a text as escapes, and no other character differently', () => {
    expect(visible('pay \u202e001\u202c \x1b[8m \u200bx \u{e0041}')).toBe(
      'pay \\u{202e}001\\u{202c} \\u{1b}[8m \\u{200b}x \\u{e0041}',
    );
    const text = 'Grüße,\n\tשלום \u200f👩\u200d💻';
    expect(visible(text)).toBe(text);
  });

  it('writes no cell that a spreadsheet takes for a formula', () => {
    const rows = [['=1+1', '+1', '-1', '@a', '\tx', 'say "hi", you', -5]];
    expect(csv(['a'], rows)).toBe(`a\r\n'=1+1,'+1,'-1,'@a,'\tx,"say ""hi"", you",-5`);
  });
});

describe('the timeline of a run', () => {
  it('joins the deltas of one step to one line', () => {
    const turn = turnOf([
      { type: 'agent_started' },
      { type: 'agent_thinking', step: 1, thought: 'One ' },
      { type: 'agent_thinking', step: 1, thought: 'two' },
      { type: 'agent_thinking', step: 2, thought: 'Three' },
    ]);
    const lines = linesOf(turn.entries);
    expect(lines.map(({ text, deltas }) => [text, deltas])).toEqual([
      ['', 1],
      ['One two', 2],
      ['Three', 1],
    ]);
    expect(answerOf(turn)).toBe('Three');
  });

  it('shows the answer of the run once it has ended', () => {
    const turn = turnOf([
      { type: 'agent_thinking', step: 1, thought: 'Hm' },
      { type: 'agent_completed', final_response: 'Done.' },
    ]);
    expect([answerOf(turn), turn.status]).toEqual(['Done.', 'completed']);
  });

  it('lists an input request until it is answered or has expired', () => {
    const asked = [
      { type: 'input_requested', input_id: 'in_1' },
      { type: 'input_requested', input_id: 'in_2' },
    ];
    expect(openInputs(turnOf(asked)).map(({ input_id }) => input_id)).toEqual(['in_1', 'in_2']);
    const after = turnOf([
      ...asked,
      { type: 'input_received', input_id: 'in_1' },
      { type: 'input_expired', input_id: 'in_2' },
    ]);
    expect([openInputs(after), after.status]).toEqual([[], 'running']);
  });

  it('keeps the latest 3,000 entries', () => {
    const events = Array.from({ length: 3_100 }, (_, step) => ({ type: 'agent_thinking', step, thought: 'x' }));
    const last = turnOf(events).entries.at(-1) as Extract<Entry, { kind: 'event' }>;
    expect([turnOf(events).entries.length, last.event.seq]).toEqual([3_000, 3_100]);
  });
});
