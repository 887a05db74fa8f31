/** The promises that the checker proves. */
export const PROMISES = {
  delivery: 'each connection receives every durable event of its user once, in order, without gaps, and no other',
  log: 'each event log is gapless and has only events of its user',
  runs: 'each accepted run has exactly one terminal event, and each request id one run',
  calls: 'each started tool call ends exactly once, and each idempotency key is executed and answered once',
  ledger: 'ledger records, completed calls and charges are the same',
  caps: "the connections of a user never exceed the plan's cap, also while the plan changes",
  limits: "the calls and messages of a user never exceed the plan's, and none is refused before",
  revocations: 'no request is served after the bound of its revocation',
  answers: 'each input request has one answer, which counts for every client and for the call',
  threads: 'the messages of each run are in its thread once',
  resources: 'after healing, connections, runs, calls, descriptors, timers and memory are back at their base line',
  processes: 'no process ends by itself or prints an unhandled error',
  evidence: 'the history is complete',
} as const;
export type PromiseName = keyof typeof PROMISES;

export interface Violation {
  readonly promise: PromiseName;
  /** One sentence with the ids that are needed to find it in the history. */
  readonly what: string;
  /** Time in the history, ms; undefined for what is known at the end only. */
  readonly at?: number;
}
