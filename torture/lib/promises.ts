/** The promises that the checker proves. */
export const PROMISES = {
  delivery: 'each connection receives every durable event of its user once, in order, without gaps, and no other',
  log: 'each event log is gapless and has only events of its user',
  runs: 'each accepted run has exactly one terminal event, and each request id one run',
  calls: 'each started tool call ends exactly once, and each idempotency key is executed and answered once',
  ledger: 'ledger records, completed calls and charges are the same',
  caps: "the connections of a user never exceed the plan's cap",
  resources: 'after healing, connections, runs and calls in flight are back at their base line',
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
