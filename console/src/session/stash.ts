import type { Renewable, TokenSet } from './oauth.ts';

const KEY = 'tollgate.session';

/**
 * Carries the session of a tab over a reload, for issuers without a sign-in cookie, at which `prompt=none` always
 * fails. The refresh token is in `sessionStorage` only between `pagehide` and the next load of this tab: it is written
 * when the page is left and removed when it is read. It is used once (the issuer rotates it), no other tab or origin
 * can read it, and scripts of others do not run here (content security policy).
 */
export function stash({ refreshToken, idToken, scopes }: TokenSet): void {
  if (refreshToken === undefined) return;
  sessionStorage.setItem(KEY, JSON.stringify({ refreshToken, idToken, scopes } satisfies Renewable));
}

/** Returns and removes what was stashed. */
export function unstash(): Renewable | undefined {
  const stored = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  return stored === null ? undefined : (JSON.parse(stored) as Renewable);
}
