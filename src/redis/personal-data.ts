import type { Keys } from './keys.ts';
import type { UserKeys } from './user-keys.ts';

/**
 * What an erasure does with each key. The table in docs/security.md has the same rows, and a test compares both. A key
 * without a row does not compile.
 *
 * - `erased`: personal; the erasure deletes the key
 * - `entries`: personal; users share the key, and the erasure removes the user's entries
 * - `pseudonymised`: personal; the user's entries remain under a pseudonym
 * - `ingested`: personal; a queue of the ledger, which has no entries of the user left before the ledger is
 *   pseudonymised
 * - `expires`: personal; cannot be found by user, and expires before the erasure begins to delete
 * - `elsewhere`: personal; erased in another system
 * - `none`: not personal
 */
export type Treatment = 'erased' | 'entries' | 'pseudonymised' | 'ingested' | 'expires' | 'elsewhere' | 'none';

/** Treatment of the keys of one user. */
export const USER_KEYS: Readonly<Record<keyof UserKeys, Treatment>> = {
  account: 'erased',
  leases: 'erased',
  connections: 'erased',
  evicted: 'erased',
  log: 'erased',
  logState: 'erased',
  published: 'erased',
  publishedKeys: 'erased',
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
  usedRefreshTokens: 'erased',
  tokenDue: 'entries',
  outbox: 'ingested',
  activeRuns: 'entries',
  unsuccessfulRuns: 'entries',
  activeCalls: 'entries',
};

/** Treatment of the keys that the deployment shares. */
export const SHARED_KEYS: Readonly<Record<Exclude<keyof Keys, 'prefix' | 'user'>, Treatment>> = {
  outbox: 'ingested',
  activeRuns: 'entries',
  unsuccessfulRuns: 'entries',
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
  erasedUsers: 'pseudonymised',
  erasure: 'pseudonymised',
  tally: 'pseudonymised',
  window: 'none',
  openWindows: 'none',
  consumers: 'none',
  ticket: 'expires',
  nodes: 'none',
  nodeDetails: 'none',
  workers: 'none',
  workerDetails: 'none',
  drainRequest: 'none',
  seriesProcesses: 'none',
  seriesMinutes: 'none',
  seriesHours: 'none',
  refusals: 'entries',
  auditLog: 'entries',
  periodicTasks: 'none',
  invalidations: 'entries',
  revocations: 'expires',
  invalidationChannel: 'none',
  runControls: 'none',
  nodeChannels: 'none',
  runQueue: 'entries',
  runQueueLoad: 'none',
  queues: 'none',
  socketIo: 'none',
  auth: 'elsewhere',
};

/**
 * Returns the keys of a user that can be named without any other id. The account is not among them: it blocks the user
 * until the erasure ends.
 */
export function plainKeys(keys: UserKeys): [name: string, key: string][] {
  return Object.entries(USER_KEYS).flatMap(([name, treatment]): [string, string][] => {
    const key = keys[name as keyof UserKeys];
    return treatment === 'erased' && typeof key === 'string' ? [[name, key]] : [];
  });
}
