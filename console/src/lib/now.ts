import { signal } from '@preact/signals';

const EVERY_MS = 5_000;

/** The current time, for relative times. It stands still while the page is hidden. */
export const now = signal(Date.now());

setInterval(() => {
  if (document.visibilityState === 'visible') now.value = Date.now();
}, EVERY_MS);
