import type { Signal } from '@preact/signals';
import { useState } from 'preact/hooks';
import { plural, timeOfDay, utc } from '../../lib/format.ts';
import { Json } from '../../ui/text.tsx';
import type { Frame } from './tap.ts';

const ARROWS = { in: '↓', out: '↑', note: '·' } as const;
const DIRECTIONS = { in: 'received', out: 'sent', note: 'note' } as const;
const SHOWN = 200;

/** The messages as they passed between client and transport. The newest is first. */
export function Frames({ frames }: { readonly frames: Signal<readonly Frame[]> }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="panel frames" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary class="panel-head">
        <h2>Frames</h2>
        <span class="muted">{plural(frames.value.length, 'frame')}, credentials masked</span>
      </summary>
      {open && (
        <ol class="frame-list">
          {frames.value
            .slice(-SHOWN)
            .toReversed()
            .map((frame) => (
              <FrameView key={frame.id} frame={frame} />
            ))}
        </ol>
      )}
    </details>
  );
}

function FrameView({ frame: { at, direction, type, fields } }: { readonly frame: Frame }) {
  const [open, setOpen] = useState(false);
  return (
    <li>
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>
          <time class="muted" dateTime={new Date(at).toISOString()} title={utc(at)}>
            {timeOfDay(at)}
          </time>{' '}
          <span aria-hidden="true">{ARROWS[direction]}</span>
          <span class="visually-hidden">{DIRECTIONS[direction]}</span> <bdi>{type}</bdi>
        </summary>
        {open && <Json value={fields} label={`Fields of ${type}`} />}
      </details>
    </li>
  );
}
