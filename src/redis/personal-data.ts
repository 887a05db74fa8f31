import type { Keys, UserKeys } from './keys.ts';

/**
 * What an erasure does with each key. The table in docs/security.md has the same rows, and a test holds both together: a key
 * without a row does not compile.
 *
 * - `erased`: personal; the key is deleted
 * - `entries`: personal; shared by users, of which the user's entries are removed
 * - `pseudonymised`: personal; the user's entries go on under a pseudonym
 * - `ingested`: personal; a queue of the ledger, which is empty of the user before the ledger is pseudonymised
 * - `expires`: personal; cannot be found by user, and expires before the erasure begins to delete
 * - `elsewhere`: personal; erased in another system
 * - `none`: not personal
 */
export type Treatment = 'erased' | 'entries' | 'pseudonymised' | 'ingested' | 'expires' | 'elsewhere' | 'none';

/** Of the keys of one user. */
export const USER_KEYS: Readonly<Record<keyof UserKeys, Treatment>> = {
  account: 'erased',
  leases: 'erased',
  connections: 'erased',
  evicted: 'erased',
  log: 'erased',
  logState: 'erased',
  channel: 'none',
  nodeChannel: 'none',
  runControl: 'none',
  messageRate: 'erased',
  ticketRate: 'erased',
  recentUsage: 'erased',
  quota: 'erased',
  reservations: 'erased',
  call: 'erased',
  calls: 'erased',
  runs: 'erased',
  runsInFlight: 'erased',
  run: 'erased',
  request: 'erased',
  threads: 'erased',
  threadInfo: 'erased',
  thread: 'erased',
  tokenSession: 'erased',
  tokenConnections: 'erased',
  tokenDue: 'entries',
  outbox: 'ingested',
  activeRuns: 'entries',
  activeCalls: 'entries',
};

/** Of the keys of the installation. */
export const SHARED_KEYS: Readonly<Record<Exclude<keyof Keys, 'prefix' | 'user'>, Treatment>> = {
  outbox: 'ingested',
  activeRuns: 'entries',
  activeCalls: 'entries',
  tokenDue: 'entries',
  ledger: 'pseudonymised',
  ledgerState: 'none',
  corrections: 'ingested',
  resubmitted: 'ingested',
  resubmittedIds: 'none',
  correction: 'pseudonymised',
  corrected: 'none',
  correctionsOf: 'erased',
  erasedRecords: 'pseudonymised',
  erasures: 'entries',
  erasure: 'pseudonymised',
  tally: 'pseudonymised',
  window: 'none',
  openWindows: 'none',
  consumers: 'none',
  ticket: 'expires',
  nodes: 'none',
  nodeDetails: 'none',
  invalidations: 'entries',
  revocations: 'expires',
  invalidationChannel: 'none',
  runControls: 'none',
  nodeChannels: 'none',
  queues: 'entries',
  socketIo: 'none',
  auth: 'elsewhere',
};

/** The keys of a user that need no id of anything, but for the account, which blocks the user until the erasure ends. */
export function plainKeys(keys: UserKeys): [name: string, key: string][] {
  return Object.entries(USER_KEYS).flatMap(([name, treatment]): [string, string][] => {
    const key = keys[name as keyof UserKeys];
    return treatment === 'erased' && typeof key === 'string' ? [[name, key]] : [];
  });
}
