import { useState } from 'preact/hooks';
import { dateTime, NONE, relative, utc } from '../lib/format.ts';
import { now } from '../lib/now.ts';
import { cut, shorten } from '../lib/shorten.ts';
import { visible } from '../lib/visible.ts';

/** Longer texts are cut, and shown in steps: a text of a user can have 64 KiB in one line. */
const SHOWN_LENGTH = 2_000;
const SHORT_LENGTH = 200;

/**
 * Text that a user, a model or a tool wrote. It is only ever text, and isolated: its direction and its control
 * characters do not reach the text around it. Hidden characters are shown as escapes.
 */
export function Foreign({ text, mono = false }: { readonly text: string | null | undefined; readonly mono?: boolean }) {
  if (text === null || text === undefined || text === '') return <>{NONE}</>;
  const shown = visible(shorten(text, SHORT_LENGTH));
  if (!mono) return <bdi class="wrap">{shown}</bdi>;
  // A narrow column cuts an id off.
  return (
    <bdi class="mono wrap" title={shown}>
      {shown}
    </bdi>
  );
}

/** A text of any length and several lines. */
export function LongText({ text, class: name = 'long-text' }: { readonly text: string; readonly class?: string }) {
  const [shown, setShown] = useState(SHOWN_LENGTH);
  const rest = text.length - shown;
  return (
    <div>
      <div class={name} dir="auto">
        {visible(rest > 0 ? cut(text, shown) : text)}
      </div>
      {rest > 0 && (
        <button type="button" class="link-button" onClick={() => setShown(shown * 8)}>
          Show more ({rest.toLocaleString()} characters left)
        </button>
      )}
    </div>
  );
}

/** A JSON value, formatted. */
export function Json({ value, label }: { readonly value: unknown; readonly label: string }) {
  const [shown, setShown] = useState(SHOWN_LENGTH);
  const text = typeof value === 'string' ? value : (JSON.stringify(value, undefined, 2) ?? String(value));
  const rest = text.length - shown;
  return (
    <div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: an area that scrolls has to be reachable with the keyboard */}
      <section class="code" tabIndex={0} aria-label={label}>
        <pre dir="auto">{visible(rest > 0 ? cut(text, shown) : text)}</pre>
      </section>
      {rest > 0 && (
        <button type="button" class="link-button" onClick={() => setShown(shown * 8)}>
          Show more ({rest.toLocaleString()} characters left)
        </button>
      )}
    </div>
  );
}

/** A time: relative or local, with UTC in its title. */
export function Time({
  at,
  exact = false,
}: {
  readonly at: string | number | null | undefined;
  readonly exact?: boolean;
}) {
  if (at === null || at === undefined || at === '') return <>{NONE}</>;
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return <>{NONE}</>;
  const title = exact ? utc(date) : `${dateTime(date)}, ${utc(date)}`;
  return (
    <time class="nowrap" dateTime={date.toISOString()} title={title}>
      {exact ? dateTime(date) : relative(date, now.value)}
    </time>
  );
}
