/**
 * One Ctrl-C arrives here up to four times: from the terminal, and passed on by npm and by the bootstrap. Later than
 * this it is a second one, from somebody who does not want to wait.
 */
const SAME_SIGNAL_MS = 700;

/** Calls `onFirst` on the first request to end and `onSecond` on the next one, whichever signal it comes as. */
export function onStopSignals(onFirst: () => void, onSecond: () => void): void {
  let firstAt: number | undefined;
  const handle = () => {
    if (firstAt === undefined) {
      firstAt = Date.now();
      onFirst();
    } else if (Date.now() - firstAt > SAME_SIGNAL_MS) onSecond();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, handle);
}
