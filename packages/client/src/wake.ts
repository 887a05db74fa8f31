interface EventTargetLike {
  addEventListener(type: string, listener: () => void): void;
  removeEventListener(type: string, listener: () => void): void;
}
interface DocumentLike extends EventTargetLike {
  readonly visibilityState: string;
}

/**
 * Calls `wake` when a browser is online again, or its page becomes visible or is restored, and `leave` when the page is
 * left or hidden: nothing may run after that. Does nothing elsewhere.
 * @returns a function that removes the listeners
 */
export function onWake(wake: () => void, leave: () => void): () => void {
  const { document, addEventListener } = globalThis as { document?: DocumentLike; addEventListener?: unknown };
  if (!document || typeof addEventListener !== 'function') return () => {};
  const page = globalThis as unknown as EventTargetLike;
  const visible = () => {
    if (document.visibilityState === 'visible') wake();
    else leave();
  };
  page.addEventListener('online', wake);
  page.addEventListener('pageshow', wake);
  page.addEventListener('pagehide', leave);
  document.addEventListener('visibilitychange', visible);
  return () => {
    page.removeEventListener('online', wake);
    page.removeEventListener('pageshow', wake);
    page.removeEventListener('pagehide', leave);
    document.removeEventListener('visibilitychange', visible);
  };
}
