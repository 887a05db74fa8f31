import { type StackAddresses, stack } from './stack.ts';
import { serviceToken } from './tokens.ts';

export interface BilledRecord {
  readonly id: string;
  readonly sequence: number;
  readonly user_id: string;
  readonly [field: string]: unknown;
}

/** Reads the whole ledger, or one user's part of it, over HTTP page by page, as a billing system does. */
export async function billedRecords(userId?: string, of: StackAddresses = stack()): Promise<BilledRecord[]> {
  const token = await serviceToken('usage:read', { stack: of });
  const records: BilledRecord[] = [];
  for (let cursor = ''; ; ) {
    const url = new URL('/v1/usage/records', of.gateways.at(-1)?.url);
    url.search = new URLSearchParams({ cursor, limit: '1000', ...(userId ? { user_id: userId } : {}) }).toString();
    const response = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
    if (!response.ok) throw new Error(`the ledger answered ${response.status}: ${await response.text()}`);
    const page = (await response.json()) as { records: BilledRecord[]; next_cursor: string; has_more: boolean };
    records.push(...page.records);
    cursor = page.next_cursor;
    if (!page.has_more) return records;
  }
}
