interface EventTargetLike {
  addEventListener(type: string, listener: () => void): void;
  removeEventListener(type: string, listener: () => void): void;
}
interface DocumentLike extends EventTargetLike {
  readonly visibilityState: string;
}

/**
 * Calls `wake` when a browser is online again, or its page becomes visible or is restored. Does nothing elsewhere.
 * @returns a function that removes the listeners
 */
export function onWake(wake: () => void): () => void {
  const { document, addEventListener } = globalThis as { document?: DocumentLike; addEventListener?: unknown };
  if (!document || typeof addEventListener !== 'function') return () => {};
  const page = globalThis as unknown as EventTargetLike;
  const visible = () => {
    if (document.visibilityState === 'visible') wake();
  };
  page.addEventListener('online', wake);
  page.addEventListener('pageshow', wake);
  document.addEventListener('visibilitychange', visible);
  return () => {
    page.removeEventListener('online', wake);
    page.removeEventListener('pageshow', wake);
    document.removeEventListener('visibilitychange', visible);
  };
}
