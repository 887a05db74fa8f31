import { randomBytes } from 'node:crypto';
import { parseJson } from '../../lib/json.ts';
import { publicError, TollgateError } from '../../protocol/errors.ts';
import type { InputOutcome, InputRequest } from '../../protocol/input.ts';
import type { ReportedTokens } from '../../runs/remote-log.ts';
import { RunSuspended } from '../../runs/run-end.ts';
import type { ToolOutcome } from '../../tools/outcome.ts';
import { asList, asNumber, asObject, asText } from '../model/json.ts';
import { RemoteFault } from './fault.ts';
import { beginTurn, type Turn, type TurnAnswer } from './turn.ts';

/** What an agent needs before it continues: the result of a call, or an answer of the user. */
export type Ask =
  | {
      readonly id: string;
      readonly tool: string;
      /** Supposed to be JSON. */
      readonly arguments: string;
    }
  | {
      readonly id: string;
      readonly request: InputRequest;
      /** Schema of the answer in the protocol of the agent. */
      readonly schema?: unknown;
    };

export type Answered =
  | { readonly id: string; readonly outcome: ToolOutcome }
  | (Extract<Ask, { readonly request: unknown }> & { readonly answer: InputOutcome });

/** What a response of an agent ends with: its answer, or asks with what the next request needs. */
export type RoundEnd<State> =
  | { readonly answer: TurnAnswer }
  | { readonly asks: readonly Ask[]; readonly state: State };

export interface RoundOptions<State> {
  readonly first: State;
  /** Maximum number of requests per run. */
  readonly maxRounds: number;
  /** Whether the kind itself can continue at a position that is no end of a response. */
  readonly resumable?: boolean;
  /** Makes one request. @param begun how the turn began, for its first request */
  exchange(state: State, number: number, begun: ReturnType<typeof beginTurn>): Promise<RoundEnd<State>>;
  /** Returns the state for the next request. */
  next(state: State, answered: readonly Answered[]): State;
  /** Tokens of the requests so far, for the bill of a turn that fails. */
  tokensOf?(state: State): ReportedTokens | undefined;
}

/** The end of a response, as stored with the run: a worker that claims the run later continues here. */
interface Checkpoint {
  /** Distinguishes the names of calls from those of an earlier attempt at the turn. */
  readonly attempt: string;
  readonly number: number;
  readonly asks: readonly Ask[];
  readonly state: unknown;
  /** `RemoteTurn.position` at the end of the response. */
  readonly position: number;
}

/** Maximum number of asks per response. */
export const MAX_ASKS = 64;
/** Maximum number of requests per run, of kinds without a setting for it. */
export const MAX_ROUNDS = 32;
/** Maximum size of a checkpoint, in characters of JSON: it is part of the hash of the run. */
const MAX_CHARACTERS = 262_144;

/**
 * Executes a turn of requests whose responses end with asks. Each end is stored before its asks are made: a run that
 * waits for its user is suspended there, and the worker that claims it next makes the same asks again, with the same
 * names, which return what they returned before.
 * @throws RunSuspended, RemoteFault
 */
export async function inRounds<State>(turn: Turn, options: RoundOptions<State>): Promise<TurnAnswer> {
  const { remote } = turn.context;
  let stored = checkpointOf(remote.cursor);
  const isSent = asObject(remote.cursor)?.sent === true;
  const isResumable = stored !== undefined || (options.resumable === true && !isSent);
  const begun = beginTurn(turn, isResumable, stored?.position);
  // A repeated turn begins from its start, whatever was stored.
  if (begun === 'restarted') stored = undefined;
  const attempt = stored?.attempt ?? (remote.takenOver ? randomBytes(4).toString('hex') : '1');
  let state = (stored?.state as State | undefined) ?? options.first;
  for (let number = stored?.number ?? 1; number <= options.maxRounds; number++) {
    let asks = stored?.asks;
    let isStored = asks !== undefined;
    stored = undefined;
    if (!asks) {
      const end = await options.exchange(state, number, number === 1 ? begun : 'started');
      if ('answer' in end) return end.answer;
      if (end.asks.length > MAX_ASKS) throw new RemoteFault('too_large', `more than ${MAX_ASKS} asks`);
      ({ asks, state } = end);
      await remote.flush();
      isStored = await store(turn, { attempt, number, asks, state, position: remote.position });
    }
    const answered = await answersOf(turn, asks, `${attempt}_${number}`).catch((thrown) => {
      if (!(thrown instanceof RunSuspended) || isStored) throw thrown;
      throw new RemoteFault('too_large', 'more state than a run that waits can store');
    });
    state = options.next(state, answered);
    // The next request must not be sent twice, so this end is no place to continue any more.
    if (isStored) await remote.save({ sent: true });
  }
  const tokens = options.tokensOf?.(state);
  throw new RemoteFault('too_large', 'more rounds than the setting allows', { tokens });
}

/** @returns whether the checkpoint is small enough to be stored */
async function store({ context }: Turn, checkpoint: Checkpoint): Promise<boolean> {
  if (JSON.stringify(checkpoint).length > MAX_CHARACTERS) return false;
  await context.remote.save(checkpoint);
  return true;
}

function checkpointOf(cursor: unknown): Checkpoint | undefined {
  const { attempt, number, asks, state, position } = asObject(cursor) ?? {};
  if (!Array.isArray(asks)) return undefined;
  return {
    attempt: asText(attempt) ?? '',
    number: asNumber(number) ?? 1,
    asks: asList(asks) as Ask[],
    state,
    position: asNumber(position) ?? 0,
  };
}

/** Makes the asks concurrently. Rejects only after all have ended, so that each is recorded. */
async function answersOf(turn: Turn, asks: readonly Ask[], names: string): Promise<Answered[]> {
  const results = await Promise.allSettled(asks.map((ask, at) => answerOf(turn, ask, `${names}_${at + 1}`)));
  const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
  if (failures.length > 0) throw failures.find((reason) => !(reason instanceof RunSuspended)) ?? failures[0];
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}

async function answerOf({ context, task }: Turn, ask: Ask, name: string): Promise<Answered> {
  const { id } = ask;
  if ('request' in ask) return { ...ask, answer: await context.requestInput(ask.request, name) };
  const args = asObject(parseJson(ask.arguments || '{}'));
  const refused = (error: TollgateError) => {
    return { id, outcome: { success: false, error: publicError(error), duration_ms: 0, usage_record_id: null } };
  };
  if (!args) return refused(new TollgateError('FORMAT_ERROR', { text: 'The arguments are not a JSON object.' }));
  if (isClientTool(task, ask.tool)) return { id, outcome: await context.callClientTool(ask.tool, args, name) };
  if (task.tools.includes(ask.tool)) return { id, outcome: await context.call(ask.tool, args, name) };
  return refused(new TollgateError('TOOL_NOT_FOUND', { fields: { tool_name: ask.tool } }));
}

export function isClientTool({ clientTools }: Turn['task'], tool: string): boolean {
  return clientTools.some(({ name }) => name === tool);
}
