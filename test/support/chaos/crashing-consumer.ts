import type { BilledRecord } from '../ledger.ts';
import type { StackAddresses } from '../stack.ts';
import { serviceToken } from '../tokens.ts';
import type { Random } from './random.ts';

const CONSUMER = 'campaign-billing';
const REQUEST_MS = 10_000;
const AGAIN_MS = 100;

interface FeedPage {
  readonly records: readonly BilledRecord[];
  readonly next_cursor: string;
  readonly has_more: boolean;
  readonly gap_detected: boolean;
}

/**
 * Reads the usage feed from random nodes while processes are killed, and crashes now and then itself. A crash loses the
 * records that it had not stored together with its cursor, and it reads those again.
 */
export class CrashingConsumer {
  /** Stored records, in the order of the feed. */
  readonly kept: BilledRecord[] = [];
  /** Faults of the feed. */
  readonly faults: string[] = [];
  crashes = 0;
  /** Records received again after a crash. */
  readAgain = 0;
  readonly #stack: StackAddresses;
  readonly #random: Random;
  /** The first content read per sequence, stored or not. */
  readonly #read = new Map<number, string>();
  #keptCursor = '';
  #token: string | undefined;

  constructor(stack: StackAddresses, random: Random) {
    this.#stack = stack;
    this.#random = random;
  }

  /** Reads until `enough` returns true, which is called after every page. */
  async pull(enough: () => boolean): Promise<void> {
    let memory: BilledRecord[] = [];
    let cursor = this.#keptCursor;
    while (!enough()) {
      const page = await this.#page(cursor).catch(() => undefined);
      if (!page) {
        // The node or Redis is unavailable.
        this.#token = undefined;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
        continue;
      }
      this.#check(page);
      memory.push(...page.records);
      cursor = page.next_cursor;
      // The first page is always lost, so that each round contains a crash.
      if ((this.crashes === 0 && memory.length > 0) || this.#random.chance(0.15)) {
        this.crashes += 1;
        memory = [];
        cursor = this.#keptCursor;
      } else if (this.#random.chance(0.5)) {
        this.kept.push(...memory);
        memory = [];
        this.#keptCursor = cursor;
        await this.#confirm(cursor).catch(() => undefined);
      }
    }
  }

  #check({ records, gap_detected }: FeedPage): void {
    if (gap_detected) this.faults.push('the feed reported a gap');
    for (const { sequence, hash } of records) {
      const before = this.#read.get(sequence);
      if (before !== undefined) this.readAgain += 1;
      if (before !== undefined && before !== hash) this.faults.push(`record ${sequence} is another one than before`);
      this.#read.set(sequence, String(hash));
    }
  }

  async #page(cursor: string): Promise<FeedPage> {
    const query = { cursor, limit: String(1 + this.#random.below(1_000)), wait: '1' };
    const response = await this.#fetch(`/v1/usage/records?${new URLSearchParams(query)}`);
    return (await response.json()) as FeedPage;
  }

  async #confirm(cursor: string): Promise<void> {
    const headers = { 'content-type': 'application/json' };
    await this.#fetch(`/v1/usage/cursors/${CONSUMER}`, { method: 'PUT', headers, body: JSON.stringify({ cursor }) });
  }

  async #fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const { gateways } = this.#stack;
    const url = gateways[this.#random.below(gateways.length)]?.url;
    this.#token ??= await serviceToken('usage:read', { clientId: CONSUMER, stack: this.#stack });
    const headers = { ...init.headers, authorization: `Bearer ${this.#token}` };
    const response = await fetch(`${url}${path}`, { ...init, headers, signal: AbortSignal.timeout(REQUEST_MS) });
    if (!response.ok) {
      const answer = `${path} was answered ${response.status}: ${await response.text()}`;
      // A node that cannot serve answers 5xx; an invalid request or an unknown cursor is a fault.
      if (response.status < 500 && response.status !== 401) this.faults.push(answer);
      throw new Error(answer);
    }
    return response;
  }
}
