import { createParser } from 'eventsource-parser';
import { parseJson } from '../../lib/json.ts';
import { ModelFault } from './fault.ts';

/** What a body contains: a JSON value, or the sentinel that ends a reply. */
export type BodyEvent = { readonly json: unknown } | 'done';

/** Reads the next bytes of a body; undefined at its end. */
export type ReadBytes = () => Promise<Uint8Array | undefined>;

const SENTINEL = /^"?\[DONE\]"?$/;
const INVALID = () => new ModelFault('the model sent invalid JSON', { reason: 'invalid', retryable: true });

/**
 * Yields the JSON of a body: the events of an event stream, the lines of a JSON stream, or one JSON value.
 *
 * Endpoints send signs of life between events: comments, events without data, named events, and data that is a word.
 * They yield nothing. The form is recognised by the first character, because the content type is often wrong.
 * @throws ModelFault for JSON that is cut or invalid
 */
export async function* bodyEvents(read: ReadBytes): AsyncGenerator<BodyEvent, void> {
  const decoder = new TextDecoder();
  let text = '';
  let ended = false;
  const more = async () => {
    const bytes = await read();
    ended = bytes === undefined;
    return decoder.decode(bytes ?? new Uint8Array(), { stream: !ended });
  };
  while (!ended && text.trimStart() === '') text += await more();
  if (/^[{[]/.test(text.trimStart())) {
    while (!ended) text += await more();
    yield* jsonEvents(text);
    return;
  }
  const queue: BodyEvent[] = [];
  const parser = createParser({ onEvent: ({ data }) => queue.push(...dataEvents(data)) });
  for (;;) {
    // An event whose blank line is missing is dispatched at the end of the body, as its data is complete.
    parser.feed(ended ? `${text}\n\n` : text);
    yield* queue.splice(0);
    if (ended) return;
    text = await more();
  }
}

/** Returns the JSON values in the data of one event. Some servers leave out the blank line between two events. */
function dataEvents(data: string): BodyEvent[] {
  const trimmed = data.trim();
  if (SENTINEL.test(trimmed)) return ['done'];
  // No JSON of a reply begins in another way.
  if (!/^[{[]/.test(trimmed)) return [];
  const json = parseJson(trimmed);
  if (json !== undefined) return [{ json }];
  const lines = trimmed.split('\n').filter((line) => line.trim() !== '');
  if (lines.length < 2) throw INVALID();
  return lines.flatMap(dataEvents);
}

function* jsonEvents(text: string): Generator<BodyEvent, void> {
  const json = parseJson(text);
  if (json !== undefined) {
    yield { json };
    return;
  }
  yield* dataEvents(text);
}
