import { createHash } from 'node:crypto';
import { type EventLog, RECENT_USAGE } from '../events/event-log.ts';
import { canonicalJson } from '../lib/canonical-json.ts';
import { newId } from '../lib/ids.ts';
import type { Reservation } from '../limits/quotas.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import { type Keys, PARTITIONS } from '../redis/keys.ts';
import { LuaScript, type ScriptReply } from '../redis/scripts.ts';
import type { Refusal, UsageRecord } from '../usage/records.ts';
import type { ToolOutcome } from './outcome.ts';

const beginCall = LuaScript.load('beginCall-8');
const endCall = LuaScript.load('endCall-9');

/** An outcome with an idempotency key can be had again for a day; a call that has not ended waits as long for the sweep. */
const KEPT_MS = 24 * 3_600_000;
/**
 * That a call without a key has ended is known for longer than the node that ends it tries to (`OUTAGE_PATIENCE_MS`). One
 * that the sweep ended is remembered as long as one with a key: its node may have been stopped, and go on at any time.
 */
const UNKEYED_MS = 90_000;
/** A call that has asked its caller is remembered for so long after each question; a person needs a minute or two. */
export const INPUT_TTL_MS = 15 * 60_000;

/** A call outside a run, as its node and the sweep know it. */
export interface CallDetails {
  readonly tool: string;
  readonly permission: string;
  readonly plan: string;
  readonly thread_id: string;
  readonly request_id: string | null;
  readonly idempotency_key: string | null;
  readonly transport: string;
  /** Milliseconds since the epoch. */
  readonly started_at: number;
  /** Questions of the call that have been answered; 0 where it is missing. */
  readonly answered?: number;
}

export interface BeginCall {
  readonly userId: string;
  readonly callId: string;
  readonly args: Fields;
  readonly details: CallDetails;
  readonly reservation: Reservation;
  /** Greatest value of the user's message counter. */
  readonly messages: number;
}

export type BeginResult =
  | { readonly outcome: 'begun' | 'refused' | 'keys'; readonly reply: readonly ScriptReply[] }
  | { readonly outcome: 'limited' | 'conflict' | 'forgotten' }
  | { readonly outcome: 'running'; readonly remainingMs: number }
  | { readonly outcome: 'done'; readonly stored: ToolOutcome };

export interface EndCall {
  readonly userId: string;
  readonly callId: string;
  readonly details: CallDetails;
  readonly outcome: ToolOutcome;
  /** Undefined for a call that was not executed. */
  readonly record: UsageRecord | undefined;
  /** Counts the use; "" gives the place back uncounted. */
  readonly quotaCommit: string;
  /** How many of its questions must be answered for the call to begin again; undefined for one that is done. */
  readonly inputRound?: number;
  /** By the sweep, and not by who executed it: that one, should it come back, is told. */
  readonly swept?: true;
  /** It was refused after it had begun: under its key it can be asked for again. */
  readonly refused?: true;
}

/**
 * Tool calls outside runs, as Redis keeps them: begun once per call id, ended once, by their node or by the sweep. One that
 * asks its caller for something ends with its question and can begin again, by the answer to it, on any node.
 */
export class CallStore {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #log: EventLog;

  constructor({ redis, keys, log }: { redis: Redis; keys: Keys; log: EventLog }) {
    this.#redis = redis;
    this.#keys = keys;
    this.#log = log;
  }

  /** Takes a place and appends `tool_executing`, or recognises the call. One round trip. @throws TollgateError OVERLOADED */
  async begin({ userId, callId, args, details, reservation, messages }: BeginCall): Promise<BeginResult> {
    const keys = this.#keys.user(userId);
    const timestamp = new Date(details.started_at).toISOString();
    const executing = { tool_name: details.tool, tool_call_id: callId, arguments: args, status: 'executing' };
    const reply = await beginCall.run(
      this.#redis,
      [
        ...[keys.messageRate, keys.call(callId), keys.activeCalls, keys.quota, keys.reservations],
        ...[keys.log, keys.logState, keys.calls],
      ],
      [
        messages,
        digest(details.tool, args),
        reservation.request,
        activeCallMember(userId, callId),
        JSON.stringify(details),
        KEPT_MS,
        timestamp,
        JSON.stringify({ ...eventFields(userId, details), ...executing, timestamp }),
        ...this.#log.appendOptions(userId),
        details.answered ?? 0,
        details.idempotency_key === null ? '' : reservation.newKeys.limit,
      ],
    );
    const [outcome, now, third, ...rest] = reply as [string, number, ScriptReply, ...ScriptReply[]];
    if (outcome === 'begun' || outcome === 'refused' || outcome === 'keys') {
      if (outcome === 'begun') this.#log.appended('tool_executing');
      return { outcome, reply: third === undefined ? [now] : [now, third, ...rest] };
    }
    if (outcome === 'running') return { outcome, remainingMs: Number(third) - now };
    if (outcome === 'done') return { outcome, stored: JSON.parse(String(third)) as ToolOutcome };
    return { outcome: outcome === 'limited' || outcome === 'forgotten' ? outcome : 'conflict' };
  }

  /**
   * Appends `tool_completed` with the usage record, counts the use and keeps the outcome. Sent twice, it does so once.
   * @returns the outcome that counts: another one when the call had been ended already
   */
  async end({
    userId,
    callId,
    details,
    outcome,
    record,
    quotaCommit,
    inputRound,
    swept,
    refused,
  }: EndCall): Promise<ToolOutcome> {
    const keys = this.#keys.user(userId);
    const timestamp = record?.completed_at ?? new Date(details.started_at + outcome.duration_ms).toISOString();
    const { answered = 0, idempotency_key } = details;
    const { questions, ...visible } = outcome;
    // A request state is a key to its call as well.
    const parsed = inputRound !== undefined || answered > 0 || (idempotency_key !== null && !refused);
    const completed = { tool_name: details.tool, tool_call_id: callId, ...visible, status: 'completed' };
    const reply = await this.#log.write(
      { script: endCall, records: record ? [{ ...record }] : [] },
      [
        keys.call(callId),
        keys.activeCalls,
        keys.quota,
        keys.reservations,
        keys.log,
        keys.logState,
        keys.outbox,
        keys.recentUsage,
        keys.calls,
      ],
      [
        quotaCommit,
        reservationMember(callId, details),
        activeCallMember(userId, callId),
        // Nobody asks again for any other, and it may be 64 KiB.
        parsed || swept ? JSON.stringify(outcome) : '',
        keptMs(details, { inputRound, swept, refused }),
        record ? JSON.stringify(record) : '',
        timestamp,
        JSON.stringify({ ...eventFields(userId, details), ...completed, timestamp }),
        ...this.#log.appendOptions(userId),
        RECENT_USAGE,
        this.#log.recordTrace(),
        answered,
        inputRound ?? '',
      ],
    );
    const [result, stored] = reply as [string, string];
    if (result === 'stale') return outcome;
    const other = result === 'over' && stored ? (JSON.parse(stored) as ToolOutcome) : undefined;
    // Without a stored one it was this very end, whose answer was lost.
    if (other) return other;
    if (record) this.#log.onAcknowledged(record);
    if (result === 'over') return outcome;
    this.#log.appended('tool_completed', record && { ...record });
    return outcome;
  }

  /** Counts a refusal in the tallies. */
  async refused(userId: string, refusal: Refusal): Promise<void> {
    await mapRedisErrors(this.#redis.xadd(this.#keys.user(userId).outbox, '*', 'x', JSON.stringify(refusal)));
  }

  /** The outcome of a call that has ended; undefined while it has not. */
  async outcome(userId: string, callId: string): Promise<ToolOutcome | undefined> {
    const stored = await mapRedisErrors(this.#redis.hget(this.#keys.user(userId).call(callId), 'outcome'));
    return stored === null ? undefined : (JSON.parse(stored) as ToolOutcome);
  }

  /** Calls whose time is over, by Redis's clock, and that nobody has ended; at most `limit` of each partition. */
  async overdue(limit = 100): Promise<{ userId: string; callId: string }[]> {
    const [seconds] = await this.#redis.time();
    const dueAt = Number(seconds) * 1000;
    // Sent together; a pipeline would have to stay on one shard.
    const looks = Array.from({ length: PARTITIONS }, (_, partition) => {
      return this.#redis.zrangebyscore(this.#keys.activeCalls(partition), '-inf', dueAt, 'LIMIT', 0, limit);
    });
    const members = (await Promise.all(looks)).flat();
    return members.map((member) => {
      const space = member.lastIndexOf(' ');
      return { userId: member.slice(0, space), callId: member.slice(space + 1) };
    });
  }

  /** What is known of a call that has not ended; undefined, and struck off, when nothing is. */
  async details(userId: string, callId: string): Promise<CallDetails | undefined> {
    const keys = this.#keys.user(userId);
    const [stored, status] = await this.#redis.hmget(keys.call(callId), 'details', 'status');
    if (stored) return JSON.parse(stored) as CallDetails;
    // One that has asked was struck off when it did, and may begin again at any time.
    if (status !== 'asked') await this.#redis.zrem(keys.activeCalls, activeCallMember(userId, callId));
    return undefined;
  }
}

/** Tells the same call from another one under the same key: the order of an object's members makes no difference. */
function digest(tool: string, args: Fields): string {
  return createHash('sha256').update(tool).update('\n').update(canonicalJson(args)).digest('base64url');
}

/** How long a call that ends is remembered from then on, in ms; "" for as long as was said when it began. */
function keptMs(
  { answered = 0, idempotency_key }: CallDetails,
  { inputRound, swept, refused }: Pick<EndCall, 'inputRound' | 'swept' | 'refused'>,
): number | '' {
  if (inputRound !== undefined) return INPUT_TTL_MS;
  if (idempotency_key !== null) return refused ? 0 : '';
  if (swept) return '';
  return answered > 0 ? INPUT_TTL_MS : UNKEYED_MS;
}

/** As `Quotas` names it. */
function reservationMember(callId: string, { tool, permission }: CallDetails): string {
  return `${callId} ${tool} ${permission}`;
}

function activeCallMember(userId: string, callId: string): string {
  return `${userId} ${callId}`;
}

function eventFields(userId: string, { thread_id, request_id }: CallDetails): Fields {
  return { event_id: newId('evt'), run_id: null, thread_id, request_id, user_id: userId, agent_name: null };
}
