import type { LedgerRecord } from '../protocol/usage.ts';
import { following, type Ledger } from './ledger/ledger.ts';
import { parseLedgerRecord } from './records.ts';
import { contentDigest, isCovered, isErased } from './redaction.ts';

/** Maximum number of cached redaction entries. Consecutive erased records usually share one. */
const KEPT_ENTRIES = 16;

/** Verifies erased records, whose own hash can no longer be recomputed. */
export class RedactionCheck {
  readonly #ledger: Pick<Ledger, 'range'>;
  readonly #entries = new Map<number, LedgerRecord | undefined>();

  constructor(ledger: Pick<Ledger, 'range'>) {
    this.#ledger = ledger;
  }

  /**
   * Returns whether a later redaction entry of the chain lists these bytes.
   * @throws RedisUnavailable
   */
  async covers(record: LedgerRecord & { readonly erasure: number }, json: string): Promise<boolean> {
    const entry = await this.#entry(record.erasure);
    return entry !== undefined && entry.sequence > record.sequence && isCovered(record, json, entry);
  }

  async #entry(sequence: number): Promise<LedgerRecord | undefined> {
    if (!this.#entries.has(sequence)) {
      const oldest = this.#entries.keys().next();
      if (this.#entries.size >= KEPT_ENTRIES && !oldest.done) this.#entries.delete(oldest.value);
      this.#entries.set(sequence, await this.#read(sequence));
    }
    return this.#entries.get(sequence);
  }

  async #read(sequence: number): Promise<LedgerRecord | undefined> {
    const [before, entry] = await this.#ledger.range(sequence - 1, sequence);
    if (!before || !entry) return undefined;
    const record = following(parseLedgerRecord(before.json).hash, entry);
    return record && isErased(record) ? undefined : record;
  }
}

/**
 * Returns whether a record confirms the content of the one before it. A record without `content_before` makes no
 * statement.
 */
export function confirms({ content_before }: LedgerRecord, before: LedgerRecord): boolean {
  return content_before === undefined || content_before === contentDigest(before);
}
