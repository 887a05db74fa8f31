import type { ScriptArgument } from './scripts.ts';

/** The login session of a token, as the scripts that change both its connections and their leases name it. */
export interface SessionEntry {
  readonly session: string;
  /** Member of the sorted set of due tokens. */
  readonly member: string;
}

/** A token that `admitConnection` registers for refreshes. */
export interface TokenRegistration extends SessionEntry {
  readonly sealed: string;
  /** The arguments of the script after the member: expiry to digest of the refresh token. */
  readonly args: readonly ScriptArgument[];
}
