import { createParser } from 'eventsource-parser';
import jsonPatch, { type Operation } from 'fast-json-patch';
import { RemoteState } from '../../src/agents/remote/remote-state.ts';
import { EventStreamParser, formatEvent, type ServerSentEvent } from '../../src/lib/event-stream.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { require, requireSame, type Target } from '../lib/target.ts';

function parsed(text: string, pieceLength = text.length || 1): ServerSentEvent[] {
  const parser = new EventStreamParser();
  const events: ServerSentEvent[] = [];
  for (let at = 0; at < text.length; at += pieceLength) events.push(...parser.feed(text.slice(at, at + pieceLength)));
  require(parser.pendingLength <= text.length + 1, 'the pending block is part of the text');
  return events;
}

const eventStream: Target = {
  name: 'event-stream',
  seeds: [
    ': c\r\n\r\nid: e:1\r\ndata: {"a":1}\r\n\r\nretry: 5\ndata:one\ndata: two\n\n\ndata: cut',
    'event: x\nid\ndata\r\rdata:\n\nid: 1\n\nfoo: bar\nretry: x\nretry: 07\n\n',
  ],
  words: ['data:', 'data: ', 'id:', 'event: ', 'retry: ', '\n\n', '\r\n', '\r', ':', '\0'],
  maxBytes: 4_096,
  packages: ['eventsource-parser'],
  isRefusal: () => false,
  run(input) {
    // The decoder of a body has removed a byte order mark.
    const text = `${input.toString('utf8').replace(/^(\ufeff|\u00ef\u00bb\u00bf)+/, '')}\n\n`;
    const events = parsed(text);
    for (const length of [1, 3])
      requireSame(parsed(text, length), events, 'the boundaries of the pieces do not matter');
    requireSame(parsed(events.map(formatEvent).join('')), events, 'events that are written are read again');
    const expected: unknown[] = [];
    const other = createParser({ onEvent: ({ id, event, data }) => expected.push({ data, type: event, id }) });
    other.feed(text);
    const read = events.flatMap(({ data, type, id }) => (data === undefined ? [] : [{ data, type, id }]));
    requireSame(read, expected, 'another parser reads the same events');
  },
};

const STATE = { a: [1, { b: 'x' }], c: { d: null }, '': 0 };

/** Applies a patch as clients of AG-UI do. */
function appliedByClient(state: unknown, patch: readonly unknown[]): unknown {
  try {
    return jsonPatch.applyPatch(state, patch as Operation[], true, false, true).newDocument;
  } catch {
    return state;
  }
}

const patches: Target = {
  name: 'agent-state',
  seeds: [
    '[[{"op":"add","path":"/a/-","value":2}],[{"op":"copy","from":"/a","path":"/c/e"},{"op":"test","path":"/c/d","value":null}]]',
    '[[{"op":"move","from":"/c","path":"/a/0"},{"op":"remove","path":"/x"}],[{"op":"replace","path":"","value":{}}]]',
    '[[{"op":"replace","path":"/a/1/b","value":[[]]}],[{"op":"add","path":"/~1~0","value":{}}]]',
  ],
  words: [
    'op',
    'add',
    'remove',
    'replace',
    'move',
    'copy',
    'test',
    'from',
    'path',
    'value',
    '/a/0',
    '/a/-',
    '/c/d',
    '/',
    '',
  ],
  maxBytes: 2_048,
  packages: ['fast-json-patch'],
  run(input) {
    let given: unknown;
    try {
      given = JSON.parse(input.toString('utf8'));
    } catch (cause) {
      throw new TollgateError('JSON_ERROR', { cause });
    }
    const all = (Array.isArray(given) ? given : []).filter((patch) => Array.isArray(patch));
    // Above the bounds of the state, the two differ on purpose.
    if (all.length > 8 || all.flat().length > 16) return;
    const state = new RemoteState(STATE);
    for (const patch of all) state.patch(structuredClone(patch));
    const expected = all.reduce<unknown>((value, patch) => appliedByClient(value, structuredClone(patch)), STATE);
    requireSame(state.value, expected, 'the state is that of a client');
  },
};

export const EVENT_STREAM_TARGETS: readonly Target[] = [eventStream, patches];
