import { useCallback, useEffect, useRef, useState } from 'preact/hooks';

export interface Resource<T> {
  /** The last answer, kept while a newer one is requested and when that fails. */
  readonly data: T | undefined;
  readonly error: unknown;
  readonly loading: boolean;
  /** Requests again now. Resolves when the answer has arrived. */
  readonly reload: () => Promise<void>;
}

interface State<T> {
  readonly data: T | undefined;
  readonly error: unknown;
  readonly loading: boolean;
}

/**
 * Loads data when the component mounts and whenever `key` changes, and repeats every `refreshMs` while the page is
 * visible. Answers of an earlier key are dropped.
 */
export function useResource<T>(
  key: string,
  load: (signal: AbortSignal) => Promise<T>,
  { refreshMs }: { readonly refreshMs?: number } = {},
): Resource<T> {
  const [state, setState] = useState<State<T> & { key: string }>({ key, ...EMPTY });
  const latest = useRef(load);
  latest.current = load;
  const request = useRef(new AbortController());

  const reload = useCallback(async () => {
    request.current.abort();
    const current = new AbortController();
    request.current = current;
    const keep = (before: State<T> & { key: string }) => (before.key === key ? before : { key, ...EMPTY });
    setState((before) => ({ ...keep(before), loading: true }));
    try {
      const data = await latest.current(current.signal);
      if (!current.signal.aborted) setState({ key, data, error: undefined, loading: false });
    } catch (error) {
      if (!current.signal.aborted) setState((before) => ({ ...keep(before), error, loading: false }));
    }
  }, [key]);

  useEffect(() => {
    void reload();
    return () => request.current.abort();
  }, [reload]);

  useEffect(() => {
    if (refreshMs === undefined) return;
    const timer = setInterval(() => {
      if (document.visibilityState === 'visible') void reload();
    }, refreshMs);
    return () => clearInterval(timer);
  }, [reload, refreshMs]);

  const { data, error, loading } = state.key === key ? state : EMPTY;
  return { data: data as T | undefined, error, loading, reload };
}

const EMPTY = { data: undefined, error: undefined, loading: true };
