/**
 * One Ctrl-C arrives here up to four times: from the terminal, and forwarded by npm and by the bootstrap. A later
 * signal is a second Ctrl-C, which asks not to wait.
 */
const SAME_SIGNAL_MS = 700;

/** Calls `onFirst` on the first termination signal and `onSecond` on the next one, whatever signals they are. */
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
