import { derivedId } from '../../../src/lib/ids.ts';
import type { Redis } from '../../../src/redis/client.ts';
import { Keys, PARTITIONS } from '../../../src/redis/keys.ts';
import { isTerminalType } from '../runs.ts';
import type { StackAddresses } from '../stack.ts';
import { serviceToken } from '../tokens.ts';
import { type ChaosUser, mainThread } from './callers.ts';
import { CallingClient, type Message } from './calling-client.ts';

/** A `tool_completed` of a user's log. */
export interface CompletedCall {
  readonly callId: string;
  readonly tool: string;
  readonly success: boolean;
  readonly runId: string | null;
  readonly recordId: string | null;
  /** Ended by the sweep, so its effect is unknown. */
  readonly cutOff: boolean;
}

/** The state of one user's log, limits and threads at the end. */
export interface UserRecord {
  readonly userId: string;
  /** Whether `seq` was 1, 2, 3, … over the whole log. */
  readonly isGapless: boolean;
  /** Call ids in the order of the log. */
  readonly executing: readonly string[];
  readonly completed: readonly CompletedCall[];
  /** Request ids of ended runs, once per terminal event. */
  readonly endedRuns: readonly string[];
  readonly inFlight: number;
  readonly thisMonth: { readonly period: string; readonly calls: number; readonly units: number };
  /** Ids of the user's threads, without the one of the runs. */
  readonly threads: ReadonlySet<string>;
}

const READ_MS = 60_000;
/** The sweep's text for a call whose process had ended. */
const CUT_OFF = /^The call did not come to an end/;

/** Reads a user's log from its beginning over a connection, and the user's further state. */
export async function readUserRecord(
  redis: Redis,
  of: StackAddresses,
  { userId, token }: ChaosUser,
): Promise<UserRecord> {
  const events: Message[] = [];
  const onMessage = (message: Message) => {
    if (typeof message.fields.seq === 'number' && message.type !== 'connection_established') events.push(message);
  };
  const url = of.gateways[0]?.url ?? '';
  const { client, welcome } = await CallingClient.open({ transport: 'ws', url, token, onMessage });
  try {
    const isReplayEnd = ({ type }: Message) => type === 'resumed' || type === 'resume_failed';
    const replayEnd = await client.request('resume', { after: 0, epoch: welcome.epoch }, isReplayEnd, READ_MS);
    if (replayEnd.type !== 'resumed') throw new Error(`the log cannot be read: ${JSON.stringify(replayEnd.fields)}`);
    const summary = await client.request('usage_summary', {}, ({ type }) => type === 'usage_summary', READ_MS);
    const { under_way, this_month } = summary.fields as unknown as {
      under_way: { calls: number };
      this_month: UserRecord['thisMonth'];
    };
    const isGapless = events.length === replayEnd.fields.to && events.every(({ fields }, at) => fields.seq === at + 1);
    const threads = await threadsOf(redis, of, userId);
    return { userId, isGapless, ...sorted(events), inFlight: under_way.calls, thisMonth: this_month, threads };
  } finally {
    client.end();
  }
}

function sorted(events: readonly Message[]): Pick<UserRecord, 'executing' | 'completed' | 'endedRuns'> {
  const ofType = (wanted: string) => events.filter(({ type }) => type === wanted).map(({ fields }) => fields);
  return {
    executing: ofType('tool_executing').map((fields) => String(fields.tool_call_id)),
    completed: ofType('tool_completed').map((fields) => ({
      callId: String(fields.tool_call_id),
      tool: String(fields.tool_name),
      success: fields.success === true,
      runId: fields.run_id as string | null,
      recordId: fields.usage_record_id as string | null,
      cutOff: CUT_OFF.test(String((fields.error as { message?: unknown } | undefined)?.message)),
    })),
    endedRuns: events.filter(({ type }) => isTerminalType(type)).map(({ fields }) => String(fields.request_id)),
  };
}

async function threadsOf(redis: Redis, { keyPrefix }: StackAddresses, userId: string): Promise<Set<string>> {
  const ids = await redis.zrange(new Keys(keyPrefix).user(userId).threads, '0', '-1');
  return new Set(ids.filter((id) => id !== mainThread(userId)));
}

/** Returns the number of calls and runs that have not ended. */
export async function unended(redis: Redis, { keyPrefix }: StackAddresses): Promise<number> {
  const keys = new Keys(keyPrefix);
  const partitions = Array.from({ length: PARTITIONS }, (_, at) => at);
  const sets = partitions.flatMap((at) => [keys.activeCalls(at), keys.activeRuns(at)]);
  const counts = await Promise.all(sets.map((key) => redis.zcard(key)));
  return counts.reduce((sum, count) => sum + count, 0);
}

/** Effects of the `create_thread` calls, apart from their charges. */
export interface Effects {
  readonly chargedWithoutEffect: readonly CompletedCall[];
  readonly effectWithoutCharge: readonly CompletedCall[];
  /** Threads that no call of the log created. */
  readonly strays: readonly string[];
}

/** The id of a thread is derived from the call that created it, so each thread can be assigned to a call. */
export function effectsOf({ userId, completed, threads }: UserRecord): Effects {
  const chargedWithoutEffect: CompletedCall[] = [];
  const effectWithoutCharge: CompletedCall[] = [];
  const strays = new Set(threads);
  for (const call of completed) {
    if (call.tool !== 'create_thread') continue;
    const exists = strays.delete(derivedId('thread', userId, call.callId));
    if (call.success && !exists) chargedWithoutEffect.push(call);
    if (!call.success && exists) effectWithoutCharge.push(call);
  }
  return { chargedWithoutEffect, effectWithoutCharge, strays: [...strays] };
}

export interface Tally {
  readonly user: string;
  readonly executions: number;
  readonly succeeded: number;
  readonly units: number;
}

interface Verification {
  readonly ok: boolean;
  readonly problem: object | null;
  readonly checked_records: number;
  readonly unsettled: readonly string[];
  readonly next: string | null;
}

/** The totals of the ledger, as billing reads them. */
export class Reports {
  readonly #url: string;
  readonly #token: string;
  readonly #from: string;

  private constructor(url: string, token: string, from: string) {
    this.#url = url;
    this.#token = token;
    this.#from = from;
  }

  /** @param since the start of the chaos test */
  static async open(of: StackAddresses, since: Date): Promise<Reports> {
    const token = await serviceToken('usage:read', { clientId: 'campaign-auditor', stack: of });
    return new Reports(of.gateways[0]?.url ?? '', token, since.toISOString().slice(0, 'YYYY-MM-DDTHH'.length));
  }

  async tallies(): Promise<Tally[]> {
    const { tallies } = await this.#get<{ tallies: Tally[] }>('tallies', { from: this.#from, group_by: 'user' });
    return tallies;
  }

  /** Returns the number of records in the windows, closed and open. */
  async inWindows(): Promise<number> {
    const { windows } = await this.#get<{ windows: { record_count: number }[] }>('windows', { from: this.#from });
    return windows.reduce((sum, { record_count }) => sum + record_count, 0);
  }

  /** Calls `verify` repeatedly up to the end of the ledger. */
  async verify(): Promise<Pick<Verification, 'ok' | 'problem' | 'checked_records' | 'unsettled'>> {
    let checked_records = 0;
    for (let from: string | null = this.#from; ; ) {
      const part: Verification = await this.#get<Verification>('verify', { from });
      checked_records += part.checked_records;
      if (!part.ok || part.unsettled.length > 0 || part.next === null) return { ...part, checked_records };
      from = part.next;
    }
  }

  async #get<T>(report: string, query: Record<string, string>): Promise<T> {
    const headers = { authorization: `Bearer ${this.#token}` };
    const response = await fetch(`${this.#url}/v1/usage/${report}?${new URLSearchParams(query)}`, { headers });
    if (!response.ok) throw new Error(`${report} was answered ${response.status}: ${await response.text()}`);
    return (await response.json()) as T;
  }
}
