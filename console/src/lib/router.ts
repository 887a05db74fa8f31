import { computed, signal } from '@preact/signals';

/**
 * The route is in the fragment (`#/users/u1?tab=runs`): the gateway serves one file, and the fragment is not sent to
 * it. The authorization response is the only use of the query.
 */
export interface Route {
  /** First segment; empty at the start page. */
  readonly page: string;
  /** The decoded segments after it. */
  readonly rest: readonly string[];
  readonly query: URLSearchParams;
}

/** What every page of operators receives. */
export interface PageProps {
  readonly route: Route;
}

const fragment = signal(location.hash);
addEventListener('hashchange', () => {
  fragment.value = location.hash;
});

export const route = computed<Route>(() => parseRoute(fragment.value));

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace('#', '').split('?');
  const [page = '', ...rest] = path.split('/').filter(Boolean).map(decode);
  return { page, rest, query: new URLSearchParams(query) };
}

/** Address of a page, for links. */
export function href(segments: string | readonly string[], query: Readonly<Record<string, string>> = {}): string {
  const path = [segments].flat().map(encodeURIComponent).join('/');
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ''));
  return `#/${path}${given.size > 0 ? `?${given}` : ''}`;
}

export function navigate(to: string): void {
  location.hash = to;
}

/** Replaces the query of the current page without an entry in the history. */
export function setQuery(query: Readonly<Record<string, string>>): void {
  const { page, rest } = route.peek();
  history.replaceState(null, '', href([page, ...rest], query));
  fragment.value = location.hash;
}

/** A segment that somebody typed may not be valid percent-encoding. */
function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
