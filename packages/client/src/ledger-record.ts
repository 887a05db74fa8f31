/** A record of the usage ledger. Later versions of the gateway may add fields. */
export interface LedgerRecord {
  readonly id: string;
  readonly sequence: number;
  readonly hash: string;
  readonly user_id: string;
  readonly plan: string;
  readonly tool: string;
  readonly units: number;
  readonly status: 'success' | 'error' | 'cancelled';
  readonly completed_at: string;
  readonly period: string;
  readonly [field: string]: unknown;
}
