import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import type { Paged } from '../api/types.ts';
import type { Resource } from '../lib/resource.ts';

export interface PagedResource<Row> extends Resource<readonly Row[]> {
  /** Loads the next page; undefined on the last one. */
  readonly more: (() => void) | undefined;
}

/** A list that is read page by page. `key` names its filters: another one starts from the first page. */
export function usePages<Page extends Paged, Row>(
  key: string,
  load: (cursor: string | undefined, signal: AbortSignal) => Promise<Page>,
  rowsOf: (page: Page) => readonly Row[],
): PagedResource<Row> {
  const [state, setState] = useState<ListState<Row>>({ key, ...START });
  const functions = useRef({ load, rowsOf });
  functions.current = { load, rowsOf };
  const request = useRef(new AbortController());

  const read = useCallback(
    async (cursor: string | undefined, before: readonly Row[]) => {
      request.current.abort();
      const current = new AbortController();
      request.current = current;
      setState((old) => ({ ...(old.key === key ? old : { key, ...START }), loading: true }));
      try {
        const page = await functions.current.load(cursor, current.signal);
        if (current.signal.aborted) return;
        const data = [...before, ...functions.current.rowsOf(page)];
        setState({ key, data, next: page.next_cursor ?? undefined, error: undefined, loading: false });
      } catch (error) {
        if (!current.signal.aborted) setState((old) => ({ ...old, error, loading: false }));
      }
    },
    [key],
  );
  useEffect(() => {
    void read(undefined, []);
    return () => request.current.abort();
  }, [read]);

  const { data, next, error, loading } = state.key === key ? state : START;
  return {
    data,
    error,
    loading,
    reload: () => read(undefined, []),
    more: next === undefined || data === undefined ? undefined : () => void read(next, data),
  };
}

interface ListState<Row> {
  readonly key: string;
  readonly data: readonly Row[] | undefined;
  readonly next: string | undefined;
  readonly error: unknown;
  readonly loading: boolean;
}
const START: Omit<ListState<never>, 'key'> = { data: undefined, next: undefined, error: undefined, loading: true };

export function More({ list }: { readonly list: PagedResource<unknown> }) {
  if (!list.more) return null;
  return (
    <div class="panel-foot">
      <button type="button" class="button" disabled={list.loading} onClick={list.more}>
        {list.loading ? 'Loading …' : 'Show more'}
      </button>
    </div>
  );
}
