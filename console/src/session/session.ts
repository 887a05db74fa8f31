import { computed, signal } from '@preact/signals';
import type { ConsoleConfig } from './config.ts';
import { issuerError, OAuthClient, type Renewable, type TokenSet } from './oauth.ts';
import { stash, unstash } from './stash.ts';

/**
 *     starting ──no session──► signed_out ──sign in──► (issuer) ──► signed_in
 *         └──code or prompt=none──► signed_in ──refused refresh──► signed_out
 */
export type SessionState =
  | { readonly status: 'starting' }
  | { readonly status: 'signed_out'; readonly message?: string }
  | { readonly status: 'signed_in'; readonly user: SignedInUser; readonly scopes: readonly string[] };

export interface SignedInUser {
  readonly id: string;
  readonly name: string;
  readonly plan: string | undefined;
}

/** Says that this tab was signed in, so that a reload asks the issuer for its session. It is no credential. */
const SIGNED_IN_KEY = 'tollgate.signed-in';
/** A token is not used in the last seconds of its life. */
const EXPIRY_MARGIN_MS = 10_000;

export const session = signal<SessionState>({ status: 'starting' });
const scopes = computed(() => (session.value.status === 'signed_in' ? session.value.scopes : []));
/** May read the admin pages. */
export const canRead = computed(() => scopes.value.includes('admin') || scopes.value.includes('admin:read'));
/** May change what they show. */
export const canWrite = computed(() => scopes.value.includes('admin'));

let client: OAuthClient | undefined;
let tokens: TokenSet | undefined;
let refreshing: Promise<TokenSet> | undefined;

// In the page's life the tokens are in memory only.
addEventListener('pagehide', () => {
  if (tokens) stash(tokens);
});
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) unstash();
});

/** Finishes a sign-in, or asks the issuer silently for the session that this tab had before a reload. */
export async function startSession(config: ConsoleConfig): Promise<void> {
  client = new OAuthClient(config);
  try {
    const found = await client.finish();
    if (found) return signedIn(found);
  } catch (error) {
    sessionStorage.removeItem(SIGNED_IN_KEY);
    return signedOut(reasonOf(error));
  }
  const renewable = unstash();
  if (renewable) return renew(renewable);
  if (sessionStorage.getItem(SIGNED_IN_KEY) === null) return signedOut();
  await redirect({ silent: true });
}

/** Continues the session of this tab after a reload. */
async function renew(before: Renewable): Promise<void> {
  try {
    const renewed = await client?.refresh(before);
    if (renewed) signedIn(renewed);
  } catch (error) {
    if (issuerError(error) === undefined) return signedOut(reasonOf(error));
    expire();
  }
}

export function signIn(): Promise<void> {
  return redirect({ silent: false });
}

export async function signOut(): Promise<void> {
  const ended = tokens;
  sessionStorage.removeItem(SIGNED_IN_KEY);
  tokens = undefined;
  session.value = { status: 'starting' };
  if (ended) await client?.signOut(ended).catch((error: unknown) => signedOut(reasonOf(error)));
  else signedOut();
}

/**
 * Returns a valid access token; concurrent callers share one refresh.
 * @param options.fresh refresh also if the token is valid, because it was refused
 * @throws Error if the session has ended
 */
export async function accessToken({ fresh = false }: { readonly fresh?: boolean } = {}): Promise<string> {
  if (!tokens) throw new Error('The session has ended.');
  if (!fresh && Date.now() < tokens.expiresAt - EXPIRY_MARGIN_MS) return tokens.accessToken;
  refreshing ??= refresh(tokens).finally(() => {
    refreshing = undefined;
  });
  return (await refreshing).accessToken;
}

async function refresh(before: TokenSet): Promise<TokenSet> {
  const { refreshToken } = before;
  try {
    if (refreshToken === undefined || !client) throw new Error('The issuer gave no refresh token.');
    const next = await client.refresh({ ...before, refreshToken });
    // The operator may have signed out meanwhile.
    if (tokens === before) signedIn(next);
    return next;
  } catch (error) {
    // A network failure ends nothing: the next request tries again.
    if (issuerError(error) !== undefined || refreshToken === undefined) expire();
    throw error;
  }
}

/** The gateway refuses the session: the operator signs in again and continues on the same page. */
function expire(): void {
  tokens = undefined;
  sessionStorage.removeItem(SIGNED_IN_KEY);
  signedOut('Your session has ended. Sign in again to continue.');
}

async function redirect(options: { readonly silent: boolean }): Promise<void> {
  try {
    if (!globalThis.isSecureContext) throw new Error('Signing in needs HTTPS, or localhost.');
    await client?.redirect(options);
  } catch (error) {
    signedOut(reasonOf(error));
  }
}

function signedIn(next: TokenSet): void {
  tokens = next;
  sessionStorage.setItem(SIGNED_IN_KEY, '1');
  session.value = { status: 'signed_in', user: userOf(next), scopes: next.scopes };
}

function signedOut(message?: string): void {
  session.value = { status: 'signed_out', message };
}

/** A missing session is no failure: the sign-in page says what to do. */
function reasonOf(error: unknown): string | undefined {
  const code = issuerError(error);
  if (code === 'login_required' || code === 'interaction_required') return undefined;
  if (code === 'access_denied') return 'The sign-in was cancelled, or the account may not use the console.';
  if (code !== undefined) return `The issuer refused the sign-in (${code}).`;
  return error instanceof Error ? error.message : String(error);
}

/** For display only: the gateway verifies the token. An access token need not be a JWT. */
function userOf({ accessToken, idToken }: TokenSet): SignedInUser {
  const claims = { ...claimsOf(accessToken), ...claimsOf(idToken) };
  const text = (name: string) => (typeof claims[name] === 'string' ? claims[name] : undefined);
  const id = text('sub') ?? 'unknown';
  return { id, name: text('email') ?? text('preferred_username') ?? id, plan: text('plan') };
}

function claimsOf(token: string | undefined): Readonly<Record<string, unknown>> {
  try {
    const body = token?.split('.')[1]?.replaceAll('-', '+').replaceAll('_', '/') ?? '';
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(body), (char) => char.charCodeAt(0))));
  } catch {
    return {};
  }
}
