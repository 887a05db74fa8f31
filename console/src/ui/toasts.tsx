import { signal } from '@preact/signals';
import type { Tone } from './badge.tsx';
import { Icon } from './icon.tsx';

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly tone: Tone;
}

const SHOWN_MS = 8_000;
const MAX_SHOWN = 4;
const toasts = signal<readonly Toast[]>([]);
let nextId = 0;

/** Reports the outcome of an action for some seconds. Failures stay until they are closed. */
export function report(text: string, tone: Tone = 'ok'): void {
  nextId += 1;
  const id = nextId;
  toasts.value = [...toasts.value, { id, text, tone }].slice(-MAX_SHOWN);
  if (tone !== 'bad') setTimeout(() => close(id), SHOWN_MS);
}

function close(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, tone }) => (
        <div key={id} class="notice" data-tone={tone}>
          <bdi class="wrap">{text}</bdi>
          <button type="button" class="button" data-kind="quiet" data-size="small" onClick={() => close(id)}>
            <Icon name="close" />
            <span class="visually-hidden">Close</span>
          </button>
        </div>
      ))}
    </div>
  );
}
