import { createHash } from 'node:crypto';
import type { UserLogWriter } from '../events/user-log-writer.ts';
import { canonicalJson } from '../lib/canonical-json.ts';
import { newId } from '../lib/ids.ts';
import type { QuotaReply, Reservation } from '../limits/quotas.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Refusal, UsageRecord } from '../protocol/usage.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import { type Keys, PARTITIONS } from '../redis/keys.ts';
import { integer, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import type { ToolOutcome } from './outcome.ts';

const beginCall = LuaScript.load(
  'beginCall-8',
  oneOf(
    tuple([literal('begun', 'refused', 'keys'), integer], integer),
    tuple([literal('limited', 'conflict', 'forgotten')]),
    tuple([literal('running'), integer, integer]),
    tuple([literal('done'), integer, text]),
  ),
);
const endCall = LuaScript.load('endCall-9', oneOf(tuple([literal('over'), text]), tuple([literal('ended', 'stale')])));

/** How long Redis keeps a call with an idempotency key, and one that has not ended and waits for the sweep: one day. */
const KEPT_MS = 24 * 3_600_000;
/**
 * How long an ended call without a key is kept: longer than its node retries the end (`OUTAGE_RETRY_MS`), so that the
 * script recognises a retry. A call that the sweep ended is kept as long as one with a key, because its node may have
 * been suspended and can resume at any time.
 */
const UNKEYED_MS = 90_000;
/** How long a call is kept after each of its input requests; a person needs a minute or two to answer. */
export const INPUT_TTL_MS = 15 * 60_000;

/** Data of a call outside a run that its node and the sweep need to end it. */
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
  /** Completed input rounds of the call; a missing value means 0. */
  readonly answered?: number;
}

export interface BeginCall {
  readonly userId: string;
  readonly callId: string;
  readonly args: Fields;
  readonly details: CallDetails;
  readonly reservation: Reservation;
  /** Maximum value of the user's message counter at which the call may begin. */
  readonly messages: number;
}

export type BeginResult =
  | { readonly outcome: 'begun' | 'refused' | 'keys'; readonly reply: QuotaReply }
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
  /** Commit argument of the reservation; "" releases the reservation without counting a use. */
  readonly quotaCommit: string;
  /** Input rounds that must be completed before the call can begin again; undefined when the call is done. */
  readonly inputRound?: number;
  /**
   * Set when the sweep ends the call instead of its node. The outcome is then stored, so that the node receives it if
   * it resumes and tries to end the call.
   */
  readonly swept?: true;
  /** Set when the call was refused after it had begun. A call with a key is deleted, so the key can be used again. */
  readonly refused?: true;
}

/**
 * Stores tool calls outside runs in Redis. A call begins once per call id. It ends once, through its node or the sweep.
 * A call that needs input ends with an input request; the answer begins it again, on any node.
 */
export class CallStore {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #log: UserLogWriter;

  constructor({ redis, keys, log }: { redis: Redis; keys: Keys; log: UserLogWriter }) {
    this.#redis = redis;
    this.#keys = keys;
    this.#log = log;
  }

  /**
   * Reserves quota and appends `tool_executing`, or recognises a repeated call. One round trip.
   * @throws TollgateError OVERLOADED
   */
  async begin({ userId, callId, args, details, reservation, messages }: BeginCall): Promise<BeginResult> {
    const keys = this.#keys.user(userId);
    const timestamp = new Date(details.started_at).toISOString();
    const executing = { tool_name: details.tool, tool_call_id: callId, arguments: args, status: 'executing' };
    const reply = await this.#log.appendWith(userId, {
      script: beginCall,
      event: 'tool_executing',
      outcomeOf: ([outcome]) => (outcome === 'begun' ? 'appended' : 'none'),
      keys: [
        keys.messageRate,
        keys.call(callId),
        keys.activeCalls,
        keys.quota,
        keys.reservations,
        keys.log,
        keys.logState,
        keys.calls,
      ],
      args: [
        messages,
        digest(details.tool, args),
        reservation.request,
        activeCallMember(userId, callId),
        JSON.stringify(details),
        KEPT_MS,
        timestamp,
        JSON.stringify({ ...eventFields(userId, details), ...executing, timestamp }),
        details.answered ?? 0,
        details.idempotency_key === null ? '' : reservation.newKeys.limit,
      ],
    });
    switch (reply[0]) {
      case 'running':
        return { outcome: 'running', remainingMs: reply[2] - reply[1] };
      case 'done':
        return { outcome: 'done', stored: JSON.parse(reply[2]) as ToolOutcome };
      case 'begun':
      case 'refused':
      case 'keys': {
        const [outcome, ...quota] = reply;
        return { outcome, reply: quota };
      }
      default:
        return { outcome: reply[0] };
    }
  }

  /**
   * Appends `tool_completed` and the usage record, counts the use and stores the outcome, in one script. Idempotent.
   * @returns the valid outcome; it differs from the given one if the call had already ended
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
    // A request state identifies its call like a key does, so a repetition can request the outcome.
    const parsed = inputRound !== undefined || answered > 0 || (idempotency_key !== null && !refused);
    const completed = { tool_name: details.tool, tool_call_id: callId, ...visible, status: 'completed' };
    const reply = await this.#log.appendWith(userId, {
      script: endCall,
      event: 'tool_completed',
      usageRecord: record,
      // Without a stored outcome, an earlier attempt of this same end succeeded and its reply was lost.
      outcomeOf: ([result, stored]) => {
        if (result === 'ended') return 'appended';
        return result === 'over' && stored === '' ? 'repeated' : 'none';
      },
      keys: [
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
      args: [
        quotaCommit,
        reservationMember(callId, details),
        activeCallMember(userId, callId),
        // No repetition can request any other outcome, and an outcome can have 64 KiB.
        parsed || swept ? JSON.stringify(outcome) : '',
        keptMs(details, { inputRound, swept, refused }),
        record ? JSON.stringify(record) : '',
        timestamp,
        JSON.stringify({ ...eventFields(userId, details), ...completed, timestamp }),
        answered,
        inputRound ?? '',
      ],
    });
    return reply[0] === 'over' && reply[1] !== '' ? (JSON.parse(reply[1]) as ToolOutcome) : outcome;
  }

  /** Appends a refusal to the outbox, to be counted in the tallies. */
  async refused(userId: string, refusal: Refusal): Promise<void> {
    await mapRedisErrors(this.#redis.xadd(this.#keys.user(userId).outbox, '*', 'x', JSON.stringify(refusal)));
  }

  /** Returns the stored outcome of a call; undefined while the call is running. */
  async outcome(userId: string, callId: string): Promise<ToolOutcome | undefined> {
    const stored = await mapRedisErrors(this.#redis.hget(this.#keys.user(userId).call(callId), 'outcome'));
    return stored === null ? undefined : (JSON.parse(stored) as ToolOutcome);
  }

  /** Returns calls past their deadline (Redis clock) that have not ended; at most `limit` per partition. */
  async overdue(limit = 100): Promise<{ userId: string; callId: string }[]> {
    const [seconds] = await this.#redis.time();
    const dueAt = Number(seconds) * 1000;
    // Separate commands, because a pipeline must stay on one shard.
    const looks = Array.from({ length: PARTITIONS }, (_, partition) => {
      return this.#redis.zrangebyscore(this.#keys.activeCalls(partition), '-inf', dueAt, 'LIMIT', 0, limit);
    });
    const members = (await Promise.all(looks)).flat();
    return members.map((member) => {
      const space = member.lastIndexOf(' ');
      return { userId: member.slice(0, space), callId: member.slice(space + 1) };
    });
  }

  /**
   * Returns the details of a call that has not ended. If none are stored, removes the call from the active calls and
   * returns undefined.
   */
  async details(userId: string, callId: string): Promise<CallDetails | undefined> {
    const keys = this.#keys.user(userId);
    const [stored, status] = await this.#redis.hmget(keys.call(callId), 'details', 'status');
    if (stored) return JSON.parse(stored) as CallDetails;
    // A call with the status `asked` was already removed with its input request, and can begin again at any time.
    if (status !== 'asked') await this.#redis.zrem(keys.activeCalls, activeCallMember(userId, callId));
    return undefined;
  }
}

/** Hash of tool and arguments, to detect a different call under the same key. The order of members is irrelevant. */
function digest(tool: string, args: Fields): string {
  return createHash('sha256').update(tool).update('\n').update(canonicalJson(args)).digest('base64url');
}

/** Milliseconds that a call is kept after its end; "" keeps the expiry that was set when it began. */
function keptMs(
  { answered = 0, idempotency_key }: CallDetails,
  { inputRound, swept, refused }: Pick<EndCall, 'inputRound' | 'swept' | 'refused'>,
): number | '' {
  if (inputRound !== undefined) return INPUT_TTL_MS;
  if (idempotency_key !== null) return refused ? 0 : '';
  if (swept) return '';
  return answered > 0 ? INPUT_TTL_MS : UNKEYED_MS;
}

/** Equals `Reservation.member` of `Quotas.reservationFor`. */
function reservationMember(callId: string, { tool, permission }: CallDetails): string {
  return `${callId} ${tool} ${permission}`;
}

function activeCallMember(userId: string, callId: string): string {
  return `${userId} ${callId}`;
}

function eventFields(userId: string, { thread_id, request_id }: CallDetails): Fields {
  return { event_id: newId('evt'), run_id: null, thread_id, request_id, user_id: userId, agent_name: null };
}
