import { createHash } from 'node:crypto';
import type { UserLogWriter } from '../events/user-log-writer.ts';
import { canonicalJson } from '../lib/canonical-json.ts';
import { newId } from '../lib/ids.ts';
import type { QuotaDecision, RateLimitStatus, Reservation } from '../limits/quotas.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Refusal } from '../protocol/usage.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { overdueMembers } from '../redis/overdue.ts';
import { integer, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import type { InputRequests } from '../upstreams/input-requests.ts';
import { commitOf, type Ending, recordOf, type ToolOutcome } from './outcome.ts';

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
  /** Only for a call of an agent on another server. */
  readonly run_id?: string;
  readonly agent_name?: string;
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
  | { readonly kind: 'begun'; readonly status: RateLimitStatus }
  | { readonly kind: 'refused'; readonly error: TollgateError }
  /** `limited`: above the message limit. `forgotten`: an answer to an input request that is no longer stored. */
  | { readonly kind: 'limited' | 'forgotten' }
  /** An earlier request began the call, which has not ended or has this outcome. */
  | { readonly kind: 'running'; readonly remainingMs: number }
  | { readonly kind: 'ended'; readonly outcome: ToolOutcome };

export interface EndCall {
  readonly userId: string;
  readonly callId: string;
  readonly details: CallDetails;
  readonly ending: Ending;
}

/** An outcome as Redis stores it. */
type StoredOutcome = Omit<ToolOutcome, 'inputRequired'> & {
  readonly questions?: InputRequests & { readonly asked: number };
};

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
      case 'begun':
      case 'refused': {
        const [outcome, ...quota] = reply;
        return beginResult(reservation.decision(outcome === 'begun', quota));
      }
      case 'keys': {
        const [, ...quota] = reply;
        return { kind: 'refused', error: reservation.newKeys.refusal(quota) };
      }
      case 'running':
        return { kind: 'running', remainingMs: reply[2] - reply[1] };
      case 'done':
        return { kind: 'ended', outcome: readOutcome(reply[2]) };
      case 'conflict':
        return { kind: 'refused', error: new TollgateError('IDEMPOTENCY_CONFLICT') };
      case 'limited':
      case 'forgotten':
        return { kind: reply[0] };
    }
  }

  /**
   * Appends `tool_completed` and the usage record, counts the use and stores the outcome, in one script. Idempotent.
   * @returns the valid outcome; it differs from the given one if the call had already ended
   */
  async end({ userId, callId, details, ending }: EndCall): Promise<ToolOutcome> {
    const keys = this.#keys.user(userId);
    const { outcome } = ending;
    const record = recordOf(ending);
    const retention = retentionOf(ending, details);
    const timestamp = record?.completed_at ?? new Date(details.started_at + outcome.duration_ms).toISOString();
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
        ...[keys.call(callId), keys.activeCalls, keys.quota, keys.reservations],
        ...[keys.log, keys.logState, keys.outbox, keys.recentUsage, keys.calls],
      ],
      args: [
        commitOf(ending),
        reservationMember(callId, details),
        activeCallMember(userId, callId),
        retention.withOutcome ? JSON.stringify(storedOutcome(outcome)) : '',
        retention.keptMs,
        record ? JSON.stringify(record) : '',
        timestamp,
        completedEvent({ userId, callId, details }, outcome, timestamp),
        details.answered ?? 0,
        retention.round,
      ],
    });
    return reply[0] === 'over' && reply[1] !== '' ? readOutcome(reply[1]) : outcome;
  }

  /** Appends a refusal to the outbox, to be counted in the tallies. */
  async refused(userId: string, refusal: Refusal): Promise<void> {
    await mapRedisErrors(this.#redis.xadd(this.#keys.user(userId).outbox, '*', 'x', JSON.stringify(refusal)));
  }

  /** Returns the stored outcome of a call; undefined while the call is running. */
  async outcome(userId: string, callId: string): Promise<ToolOutcome | undefined> {
    const stored = await mapRedisErrors(this.#redis.hget(this.#keys.user(userId).call(callId), 'outcome'));
    return stored === null ? undefined : readOutcome(stored);
  }

  /** Returns calls past their deadline (Redis clock) that have not ended; at most `limit` per partition. */
  async overdue(limit = 100): Promise<{ userId: string; callId: string }[]> {
    const members = await overdueMembers(this.#redis, (partition) => this.#keys.activeCalls(partition), limit);
    return members.map(({ userId, id }) => ({ userId, callId: id }));
  }

  /**
   * Returns the details of a call that has not ended. If none are stored, removes the call from the active calls and
   * returns undefined.
   */
  async details(userId: string, callId: string): Promise<CallDetails | undefined> {
    const keys = this.#keys.user(userId);
    const [stored, status] = await this.#redis.hmget(keys.call(callId), 'details', 'status');
    if (stored) return JSON.parse(stored);
    // A call with the status `asked` was already removed with its input request, and can begin again at any time.
    if (status !== 'asked') await this.#redis.zrem(keys.activeCalls, activeCallMember(userId, callId));
    return undefined;
  }
}

/** Hash of tool and arguments, to detect a different call under the same key. The order of members is irrelevant. */
function digest(tool: string, args: Fields): string {
  return createHash('sha256').update(tool).update('\n').update(canonicalJson(args)).digest('base64url');
}

function beginResult(decision: QuotaDecision): BeginResult {
  return decision.allowed ? { kind: 'begun', status: decision.status } : { kind: 'refused', error: decision.error };
}

/** How a call is kept after it ended. */
interface Retention {
  /** Only if a repetition can request the outcome, which can have 64 KiB. */
  readonly withOutcome: boolean;
  /** Milliseconds; "" keeps the expiry that was set when the call began. */
  readonly keptMs: number | '';
  /** Input rounds that must be completed before the call can begin again; "" when the call is done. */
  readonly round: number | '';
}

function retentionOf(ending: Ending, { answered = 0, idempotency_key }: CallDetails): Retention {
  const done = { round: '' } as const;
  switch (ending.kind) {
    case 'input_required':
      return { withOutcome: true, keptMs: INPUT_TTL_MS, round: ending.round };
    case 'refused':
      // A call that continues with an answer must accept the same answer again. Any other key can be used again.
      if (answered > 0) return { withOutcome: true, keptMs: INPUT_TTL_MS, round: answered };
      return { ...done, withOutcome: false, keptMs: idempotency_key === null ? UNKEYED_MS : 0 };
    case 'expired':
      // The node of the call may resume and try to end the call; it then receives this outcome.
      return { ...done, withOutcome: true, keptMs: '' };
    case 'completed':
    case 'stopped':
      if (idempotency_key !== null) return { ...done, withOutcome: true, keptMs: '' };
      // A request state identifies its call like a key does.
      if (answered > 0) return { ...done, withOutcome: true, keptMs: INPUT_TTL_MS };
      return { ...done, withOutcome: false, keptMs: UNKEYED_MS };
  }
}

/** Stored names stay as they are, because nodes of two versions read them during a rolling deployment. */
function storedOutcome({ inputRequired, ...outcome }: ToolOutcome): StoredOutcome {
  if (!inputRequired) return outcome;
  const { round, ...requests } = inputRequired;
  return { ...outcome, questions: { ...requests, asked: round } };
}

function readOutcome(json: string): ToolOutcome {
  const { questions, ...outcome }: StoredOutcome = JSON.parse(json);
  if (!questions) return outcome;
  const { asked, ...requests } = questions;
  return { ...outcome, inputRequired: { ...requests, round: asked } };
}

/** Equals `Reservation.member` of `Quotas.reservationFor`. */
function reservationMember(callId: string, { tool, permission }: CallDetails): string {
  return `${callId} ${tool} ${permission}`;
}

function activeCallMember(userId: string, callId: string): string {
  return `${userId} ${callId}`;
}

/** Fields of `tool_completed` as JSON. Input requests are sent to the caller only. */
function completedEvent(
  { userId, callId, details }: Pick<EndCall, 'userId' | 'callId' | 'details'>,
  { inputRequired: _, ...visible }: ToolOutcome,
  timestamp: string,
): string {
  const completed = { tool_name: details.tool, tool_call_id: callId, ...visible, status: 'completed' };
  return JSON.stringify({ ...eventFields(userId, details), ...completed, timestamp });
}

function eventFields(userId: string, { thread_id, request_id, run_id, agent_name }: CallDetails): Fields {
  const run = { run_id: run_id ?? null, thread_id, request_id };
  return { event_id: newId('evt'), ...run, user_id: userId, agent_name: agent_name ?? null };
}
