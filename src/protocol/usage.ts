export type UsageStatus = 'success' | 'error' | 'cancelled';

/**
 * The usage record of one tool execution or one model step, as it is billed. It is written once, in the same step as
 * the event that names it, and never changes.
 */
export interface UsageRecord {
  readonly id: string;
  readonly user_id: string;
  readonly plan: string;
  readonly tool: string;
  readonly permission: string;
  readonly status: UsageStatus;
  /** Price units; 0 unless the tool succeeded. */
  readonly units: number;
  /**
   * Amounts that a model or remote agent reported, by kind: `input_tokens`, `output_tokens`. Only on model steps and
   * turns.
   */
  readonly units_by_kind?: Readonly<Record<string, number>>;
  /** The model reported no amounts: those in `units_by_kind` are an estimate. */
  readonly estimated?: true;
  /** A remote agent reported the amounts in `units_by_kind`; nothing verifies them. */
  readonly reported?: true;
  readonly run_id: string | null;
  readonly thread_id: string | null;
  readonly request_id: string | null;
  readonly idempotency_key: string | null;
  readonly transport: string;
  /** ISO 8601, UTC. */
  readonly started_at: string;
  readonly completed_at: string;
  readonly duration_ms: number;
  /** The hour to which it belongs, by its completion: YYYY-MM-DDTHH, UTC. */
  readonly period: string;
  /** Only on corrections: the id of the corrected record, whose `units` change by those of this record. */
  readonly corrects?: string;
  /** Only on corrections: the reason. */
  readonly reason?: string;
  /**
   * Only on redaction entries, which are corrections of 0 units: the erased records that the entry covers, each with
   * the SHA-256 of its erased form. See src/usage/redaction.ts.
   */
  readonly erases?: readonly (readonly [sequence: number, sha256: string])[];
}

/** A tool call that was denied: counted, never billed. It is written in the same step as its `tool_completed`. */
export interface Refusal {
  readonly user_id: string;
  readonly plan: string;
  readonly tool: string;
  readonly period: string;
}

/** A usage record with the fields that ingestion adds. */
export interface LedgerRecord extends UsageRecord {
  /** Number in the ledger: 1, 2, 3, … without gaps. */
  readonly sequence: number;
  /** 128 random bits, base64url: the key of the commitment to the record's personal fields. Absent in older records. */
  readonly salt?: string;
  /**
   * Content digest of the record before, which excludes its personal fields: see src/usage/redaction.ts. Absent in
   * older records.
   */
  readonly content_before?: string;
  /** Only on erased records: the commitment to the original personal fields. */
  readonly personal?: string;
  /** Only on erased records: the sequence of the redaction entry that covers it. */
  readonly erasure?: number;
  /**
   * SHA-256 over the hash of the record before it and this record. The hash of an erased record is that of the original
   * record.
   */
  readonly hash: string;
}
