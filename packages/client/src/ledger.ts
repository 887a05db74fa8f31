import { errorFromFields, TollgateError } from './errors.ts';
import type { LedgerRecord } from './ledger-record.ts';

export { type BillingSystem, billingRequests } from './billing.ts';
export type { LedgerRecord } from './ledger-record.ts';

export interface LedgerPage {
  readonly records: readonly LedgerRecord[];
  /** Continue from here. Store both values in the same transaction as the records. */
  readonly position: LedgerPosition;
  readonly hasMore: boolean;
}

export interface LedgerPosition {
  readonly cursor: string | undefined;
  /** Hash of the last record, from which the next page is verified. */
  readonly lastHash: string | undefined;
}

export interface LedgerFeedOptions {
  readonly url: string;
  /** Returns a service token with the scope `usage:read`. */
  readonly getToken: () => string | Promise<string>;
  /** How long a request is repeated after an outage, in milliseconds. Default 20,000. */
  readonly retryMs?: number;
}

export interface PullOptions {
  /** The position that was stored with the last page. Default: the beginning of the ledger. */
  readonly from?: LedgerPosition;
  /** Records per page, 1 to 1,000. Default 1,000. */
  readonly limit?: number;
  /** Only the records of this user. Their hashes cannot be verified, because records of others are between them. */
  readonly user?: string | undefined;
  /** Waits for further records at the end of the ledger, until `signal` is aborted. */
  readonly follow?: boolean;
  readonly signal?: AbortSignal;
}

const WAIT_SECONDS = 20;
const MAX_RETRY_MS = 20_000;
const MAX_DELAY_MS = 5_000;

/** Reads the feed of the usage ledger, verifies its hash chain, and detects gaps. */
export class LedgerFeed {
  readonly #options: LedgerFeedOptions;

  constructor(options: LedgerFeedOptions) {
    this.#options = options;
  }

  /**
   * Yields pages of records until the end of the ledger.
   * @throws TollgateError LEDGER_GAP if records are missing after the position, LEDGER_CHAIN_BROKEN if a record does
   *   not follow from the one before: do not continue before you have checked the ledger with `GET /v1/usage/verify`
   */
  async *pull({
    from,
    limit = 1_000,
    user,
    follow = false,
    signal,
  }: PullOptions = {}): AsyncGenerator<LedgerPage, void> {
    let position: LedgerPosition = from ?? { cursor: undefined, lastHash: undefined };
    while (!signal?.aborted) {
      const page = await this.#page(position, { limit, user, wait: follow ? WAIT_SECONDS : 0, signal });
      position = page.position;
      if (page.records.length > 0) yield page;
      if (!page.hasMore && !follow) return;
    }
  }

  /** Confirms that the consumer has stored everything up to the cursor, so that the ledger may trim it. */
  async confirm(consumer: string, cursor: string): Promise<void> {
    const path = `/v1/usage/cursors/${encodeURIComponent(consumer)}`;
    await this.#request(path, { method: 'PUT', body: JSON.stringify({ cursor }) });
  }

  async #page(
    { cursor, lastHash }: LedgerPosition,
    {
      limit,
      user,
      wait,
      signal,
    }: { limit: number; user: string | undefined; wait: number; signal: AbortSignal | undefined },
  ): Promise<LedgerPage> {
    const query = new URLSearchParams({ limit: String(limit), wait: String(wait) });
    if (cursor !== undefined) query.set('cursor', cursor);
    if (user !== undefined) query.set('user_id', user);
    const { headers, text } = await this.#request(`/v1/usage/records?${query}`, { signal: signal ?? null });
    if (headers.get('x-gap-detected') === 'true') {
      throw new TollgateError('LEDGER_GAP', { message: 'Records are missing after the cursor.', retryable: false });
    }
    const records: LedgerRecord[] = [];
    let before = lastHash;
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const record = JSON.parse(line) as LedgerRecord;
      if (user === undefined) await verify(line, record, before);
      before = record.hash;
      records.push(record);
    }
    const next = headers.get('x-next-cursor') ?? cursor;
    return { records, position: { cursor: next, lastHash: before }, hasMore: headers.get('x-has-more') === 'true' };
  }

  /** Repeats after an outage or a busy gateway, until `retryMs` have passed. */
  async #request(path: string, init: RequestInit): Promise<{ headers: Headers; text: string }> {
    const deadline = Date.now() + (this.#options.retryMs ?? MAX_RETRY_MS);
    for (let delayMs = 500; ; delayMs = Math.min(2 * delayMs, MAX_DELAY_MS)) {
      const error = await this.#attempt(path, init).catch((cause: unknown) => {
        if (init.signal?.aborted) throw cause;
        return new TollgateError('UNREACHABLE', {
          message: `Cannot reach ${this.#options.url}.`,
          retryable: true,
          cause,
        });
      });
      if (!(error instanceof TollgateError)) return error;
      if (!error.retryable || Date.now() + delayMs > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, delayMs));
    }
  }

  async #attempt(path: string, init: RequestInit): Promise<{ headers: Headers; text: string } | TollgateError> {
    const headers = {
      authorization: `Bearer ${await this.#options.getToken()}`,
      accept: 'application/x-ndjson',
      ...(init.body ? { 'content-type': 'application/json' } : {}),
    };
    const response = await fetch(this.#options.url.replace(/\/$/, '') + path, { ...init, headers });
    const text = await response.text();
    return response.ok ? { headers: response.headers, text } : errorOf(response.status, text);
  }
}

function errorOf(status: number, text: string): TollgateError {
  try {
    const parsed = JSON.parse(text) as { error?: Record<string, unknown> } & Record<string, unknown>;
    return errorFromFields(typeof parsed.error === 'object' ? parsed.error : parsed);
  } catch {
    return new TollgateError(`HTTP_${status}`, { retryable: status >= 500 });
  }
}

/**
 * Verifies `hash`: SHA-256 of the hash before, a line break, and the record's JSON without `hash`. The text of the line
 * is used as it came, because another serialization could differ in a byte. Without the hash of the record before, the
 * first record of a page cannot be verified.
 */
async function verify(line: string, record: LedgerRecord, before: string | undefined): Promise<void> {
  if (before === undefined && record.sequence !== 1) return;
  const text = line.replace(`,"hash":"${record.hash}"`, '');
  const bytes = new TextEncoder().encode(`${before ?? ''}\n${text}`);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  const hash = [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  if (hash === record.hash) return;
  throw new TollgateError('LEDGER_CHAIN_BROKEN', {
    message: `Record ${record.sequence} does not follow from the one before.`,
    retryable: false,
    fields: { record },
  });
}
