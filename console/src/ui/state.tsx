import type { ComponentChildren } from 'preact';
import { ApiError } from '../api/http.ts';
import type { Resource } from '../lib/resource.ts';

/** Nothing to show, and what to do about it. */
export function Empty({ title, children }: { readonly title: string; readonly children?: ComponentChildren }) {
  return (
    <div class="state">
      <strong>{title}</strong>
      {children && <div>{children}</div>}
    </div>
  );
}

export function Failure({ error, retry }: { readonly error: unknown; readonly retry?: () => void }) {
  return (
    <div class="notice" data-tone="bad" role="alert">
      <div>
        <strong>{titleOf(error)}</strong>
        <div class="muted wrap">{messageOf(error)}</div>
      </div>
      {retry && (
        <button type="button" class="button" data-size="small" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

export function titleOf(error: unknown): string {
  if (!(error instanceof ApiError)) return 'The gateway cannot be reached';
  return error.status === 404 ? 'Not found' : error.code.replaceAll('_', ' ').toLowerCase();
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Shows a resource: a line while it loads, its failure, or its data. Data stays visible while a repetition fails. */
export function Loaded<T>({
  resource,
  children,
}: {
  readonly resource: Resource<T>;
  readonly children: (data: T) => ComponentChildren;
}) {
  const { data, error, reload } = resource;
  const retry = () => void reload();
  if (data === undefined) {
    if (error !== undefined) return <Failure error={error} retry={retry} />;
    return (
      <div class="state" role="status">
        Loading …
      </div>
    );
  }
  return (
    <>
      {error !== undefined && <Failure error={error} retry={retry} />}
      {children(data)}
    </>
  );
}
