import { describe, expect, it } from '@jest/globals';
import { bodyEvents } from '../../src/agents/model/event-stream.ts';
import { parseJson } from '../../src/agents/model/json.ts';
import { ReplyReader } from '../../src/agents/model/reply.ts';
import { RemoteState } from '../../src/agents/remote/remote-state.ts';
import { EventStreamParser } from '../../src/lib/event-stream.ts';

const deep = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`;

/** CPU milliseconds of this thread. */
function cpuOf(work: () => void): number {
  const start = process.threadCpuUsage();
  work();
  const { user, system } = process.threadCpuUsage(start);
  return (user + system) / 1_000;
}

describe('an event stream of another server', () => {
  it.each([
    ['lines that are no field', 't\n'.repeat(131_072)],
    ['blank lines before a carriage return', `${'\n'.repeat(262_143)}\r`],
    ['one event of many lines', 'data:\n'.repeat(43_690)],
    ['invalid reconnection times', 'retry: x\n'.repeat(29_127)],
  ])('takes less than 1 ms of CPU per KiB for %s', (_name, text) => {
    const parser = new EventStreamParser();
    expect(cpuOf(() => parser.feed(text))).toBeLessThan(256);
  });

  it('takes linear time for one line in many pieces', () => {
    const parser = new EventStreamParser();
    const pieces = cpuOf(() => {
      for (let at = 0; at < 100_000; at++) parser.feed('data:xxxxx');
    });
    expect(pieces).toBeLessThan(1_000);
    expect(parser.pendingLength).toBe(1_000_000);
  });
});

describe('a reply of a model', () => {
  async function eventsOf(...texts: readonly string[]) {
    const pieces = texts.map((text) => Buffer.from(text));
    const events: unknown[] = [];
    for await (const event of bodyEvents(async () => pieces.shift())) {
      events.push(event);
      if (event === 'done') return events;
    }
    return events;
  }

  it('is complete with [DONE], whatever follows it in the same packet', async () => {
    const events = ['data: {"a":1}\n\n', 'data: [DONE]\n\n', 'data: [DONE_\n\n'];
    const expected = [{ json: { a: 1 } }, 'done'];
    expect(await eventsOf(...events)).toEqual(expected);
    expect(await eventsOf(events.join(''))).toEqual(expected);
  });

  it('of more than 64 levels of JSON is a fault of the model', async () => {
    await expect(eventsOf(`data: {"choices":${deep(20_000)}}\n\n`)).rejects.toMatchObject({ reason: 'invalid' });
    expect(parseJson(deep(64))).toBeDefined();
    expect(parseJson(deep(65))).toBeUndefined();
  });

  it('with arguments of more than 64 levels of JSON has a call that is refused to the model', () => {
    const reader = new ReplyReader({ textLength: 9, reasoningLength: 9, calls: 1, argumentsLength: 65_536 });
    const called = { name: 'count', arguments: `{"a":${deep(20_000)}}` };
    reader.append({
      choices: [{ delta: { tool_calls: [{ id: 'a', function: called }] }, finish_reason: 'tool_calls' }],
    });
    expect(reader.reply(0).calls).toMatchObject([{ problem: 'The arguments are not one JSON object.' }]);
  });
});

describe('the state of an AG-UI agent', () => {
  const add = (path: string, value: unknown) => ({ op: 'add', path, value });
  const copy = (from: string, path: string) => ({ op: 'copy', from, path });

  it('grows by copies up to a bound, and keeps what it was beyond it', () => {
    const state = new RemoteState({ a: ['x'.repeat(1_000)] });
    for (let at = 0; at < 64; at++) state.patch([copy('/a', '/a/-')]);
    state.patch([add('/b', 1)]);
    expect(JSON.stringify(state.value).length).toBeLessThan(300_000);
    expect(state.value).toMatchObject({ b: 1 });
  });

  it('with more than 128 levels stays what it was', () => {
    const state = new RemoteState({ a: {} });
    for (let at = 1; at < 20_000; at++) state.patch([add('/a'.repeat(at + 1), {})]);
    expect(JSON.stringify(state.value).length).toBeLessThan(1_000);
    state.patch([copy('', '/b')]);
    state.patch([add('/b/a/c', 1)]);
    expect(JSON.stringify(state.value).length).toBeLessThan(3_000);
  });

  it('takes linear time for many patches of a large state', () => {
    const state = new RemoteState({ list: Array.from({ length: 20_000 }, (_, at) => ({ at })) });
    for (let at = 0; at < 2_000; at++) state.patch([add('/n', at), add('/m', at)]);
    expect(cpuOf(() => state.value)).toBeLessThan(2_000);
    expect(state.value).toMatchObject({ n: 1_999, m: 1_999 });
  });

  it('leaves out a patch that fails in a later operation, and no other', () => {
    const state = new RemoteState({});
    for (const [at, name] of ['a', 'b', 'c'].entries()) {
      state.patch(at === 1 ? [add('/b', 1), { op: 'remove', path: '/none' }] : [add(`/${name}`, 1), add('/d', at)]);
    }
    expect(state.value).toEqual({ a: 1, c: 1, d: 2 });
  });
});
