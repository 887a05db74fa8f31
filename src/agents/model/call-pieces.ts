import { parseJson } from '../../lib/json.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { ModelCall } from '../../runs/step-log.ts';
import { asNumber, asObject, asText } from './json.ts';

export interface CallLimits {
  /** Maximum tool calls per step; further ones are refused to the model. */
  readonly calls: number;
  /** Maximum characters of the arguments of one call. A call with longer arguments is refused to the model. */
  readonly argumentsLength: number;
}

const MAX_NAME_LENGTH = 128;
/** Longer ids are replaced. Some endpoints hide a signature of about 1,000 characters in the id. */
const MAX_ID_LENGTH = 16_384;
/** Maximum size of the fields beside one call that go back to the model. */
const MAX_EXTRA_LENGTH = 65_536;
/** Maximum number of calls above the limit that are refused one by one; all others are not mentioned. */
const MAX_REFUSED = 32;
/** Prefixes that models put before the name of a function. */
const PREFIX = /^(?:functions?|tools?|default_api)[.:]/;
/** Name of a call without a name: endpoints refuse an empty one in the next request. */
const NAMELESS = 'unnamed';

/** A piece of a call, with the fields that count. */
interface Piece {
  readonly index: number | undefined;
  readonly id: string | undefined;
  readonly name: string | undefined;
  /** A text, or the whole arguments as another JSON value; undefined for none. */
  readonly arguments: unknown;
  readonly extra: Fields;
}

interface PartialCall {
  index: number | undefined;
  id: string;
  name: string;
  arguments: string;
  extra: Fields;
  tooLong: boolean;
}

/**
 * Joins the pieces of the tool calls of one reply. A piece belongs to the call with its id, else with its index, else
 * to the open call, which is the one that received the latest piece. Endpoints break each of these rules, so two
 * further ones apply: a piece that only adds arguments continues an unfinished call, and a piece with a name of its own
 * never continues a call with complete arguments.
 *
 * Wrong joins are harmless: joined arguments of two calls are invalid JSON, and such a call is refused to the model.
 * Wrong splits are not: a call that lost its arguments would run without them. In doubt, pieces are joined.
 */
export class CallPieces {
  readonly #limits: CallLimits;
  /** Names of the tools of the request. They tell a repeated name from a name in pieces. */
  readonly #tools: ReadonlySet<string>;
  readonly #calls: PartialCall[] = [];
  #open: PartialCall | undefined;
  #dropped = 0;

  constructor(limits: CallLimits, tools: ReadonlySet<string>) {
    this.#limits = limits;
    this.#tools = tools;
  }

  get empty(): boolean {
    return this.#calls.length === 0;
  }

  /** Number of calls above all bounds, which are not refused one by one. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Size of the arguments, for an estimate of the tokens. */
  get bytes(): number {
    return this.#calls.reduce((sum, call) => sum + Buffer.byteLength(call.arguments), 0);
  }

  /** Adds one element of `tool_calls`; a value that is no piece has no effect. */
  append(value: unknown): void {
    const piece = pieceOf(value);
    if (!piece) return;
    const call = this.#callOf(piece) ?? this.#begin(piece);
    if (!call) return;
    this.#open = call;
    if (piece.id !== undefined && call.id === '') call.id = piece.id;
    if (piece.index !== undefined && call.index === undefined) call.index = piece.index;
    if (piece.name !== undefined) call.name = this.#joinedName(call.name, piece.name);
    addArguments(call, piece.arguments, this.#limits.argumentsLength);
    if (JSON.stringify(piece.extra).length <= MAX_EXTRA_LENGTH) call.extra = { ...call.extra, ...piece.extra };
  }

  /**
   * Returns the calls in the order of their index, each with an id of its own, because ids identify the results.
   * @param cut whether the reply ended before its end, so that its last call may lack arguments
   */
  complete(cut: boolean): ModelCall[] {
    const calls = this.#calls.filter(({ name, arguments: json, id }) => name !== '' || json !== '' || id !== '');
    const last = this.#open;
    const ordered = calls.toSorted((a, b) => (a.index ?? calls.indexOf(a)) - (b.index ?? calls.indexOf(b)));
    const ids = uniqueIds(ordered);
    return ordered.map((call, at) => {
      const problem = this.#problemOf(call, at, cut && call === last);
      const extra = Object.keys(call.extra).length > 0 ? { extra: call.extra } : {};
      const name = this.#toolName(call.name) || NAMELESS;
      const id = ids[at] ?? '';
      return { id, name, arguments: wholeArguments(call.arguments), ...extra, ...(problem ? { problem } : {}) };
    });
  }

  #problemOf(call: PartialCall, at: number, cut: boolean): string | undefined {
    if (at >= this.#limits.calls)
      return `Only ${this.#limits.calls} calls per step are allowed. Repeat this one later.`;
    if (call.name === '') return 'The call has no tool name.';
    if (call.tooLong) return `The arguments have more than ${this.#limits.argumentsLength} characters.`;
    const empty = call.arguments.trim() === '';
    // Its arguments may have gone to the other call. In doubt, the model repeats a call rather than a tool runs
    // without.
    const isTwin = (other: PartialCall) =>
      other.arguments.trim() !== '' && (other.name === call.name || (other.id !== '' && other.id === call.id));
    if (empty && this.#calls.some(isTwin)) return 'The call has no arguments of its own. Repeat it with {}.';
    if (parseArguments(wholeArguments(call.arguments)) && !(cut && empty)) return undefined;
    return cut ? 'The arguments were cut off. Use shorter ones.' : 'The arguments are not one JSON object.';
  }

  /** Returns the call that a piece belongs to; undefined when it begins a call. */
  #callOf(piece: Piece): PartialCall | undefined {
    const open = this.#open;
    const byId = piece.id === undefined ? undefined : this.#calls.findLast(({ id }) => id === piece.id);
    if (byId) return isAnotherOfOneId(byId, piece) ? undefined : byId;
    const byIndex = piece.index === undefined ? undefined : this.#calls.findLast(({ index }) => index === piece.index);
    if (byIndex && (piece.id === undefined || byIndex.id === '')) {
      return this.#isNewCall(byIndex, piece) ? undefined : byIndex;
    }
    const candidate = byIndex ?? open;
    if (!candidate) return undefined;
    if (piece.id !== undefined) {
      // The id differs: another call, unless the endpoint makes up an id for each piece of an unfinished call.
      const sameCall = piece.name === undefined || (byIndex !== undefined && piece.name === candidate.name);
      return sameCall && hasMoreArguments(candidate, piece) ? candidate : undefined;
    }
    if (piece.name === undefined) return candidate;
    if (piece.index === undefined) return this.#isNewCall(candidate, piece) ? undefined : candidate;
    return piece.name === candidate.name && hasMoreArguments(candidate, piece) ? candidate : undefined;
  }

  /** Whether a piece with a name, for the same index or without one, begins another call. */
  #isNewCall(call: PartialCall, piece: Piece): boolean {
    if (piece.name === undefined || call.name === '') return false;
    const given = hasArguments(piece);
    if (isComplete(call.arguments) && call.arguments.trim() !== '') return given;
    if (piece.name === call.name) return false;
    // Another name before any arguments: the rest of a name in pieces, or a call without arguments.
    return this.#tools.has(this.#toolName(call.name)) && !this.#tools.has(this.#toolName(call.name + piece.name));
  }

  #begin(piece: Piece): PartialCall | undefined {
    if (this.#calls.length >= this.#limits.calls + MAX_REFUSED) {
      this.#dropped += 1;
      return undefined;
    }
    const { index, id = '' } = piece;
    const call = { index, id, name: '', arguments: '', extra: {}, tooLong: false };
    this.#calls.push(call);
    return call;
  }

  #joinedName(name: string, piece: string): string {
    const repeated = piece === name && (this.#tools.has(this.#toolName(name)) || !this.#tools.has(name + piece));
    const grown = piece.startsWith(name) && this.#tools.has(this.#toolName(piece));
    return (name === '' || repeated || grown ? piece : name + piece).slice(0, MAX_NAME_LENGTH);
  }

  /** Returns the name of the tool that the model means: without blanks and prefixes. */
  #toolName(name: string): string {
    const trimmed = name.trim();
    if (this.#tools.has(trimmed)) return trimmed;
    const bare = trimmed.replace(PREFIX, '');
    return this.#tools.has(bare) ? bare : trimmed;
  }
}

function pieceOf(value: unknown): Piece | undefined {
  const fields = asObject(value);
  if (!fields) return undefined;
  const { index, id, type, function: called, name, arguments: given, ...extra } = fields;
  const inner = asObject(called);
  const ownName = asText(inner?.name) ?? asText(name);
  const ownId = asText(id) ?? asNumber(id)?.toString();
  const number = asNumber(index);
  const { name: _name, arguments: _given, ...beside } = inner ?? {};
  const all = Object.keys(beside).length > 0 ? { ...extra, function: beside } : extra;
  return {
    index: number !== undefined && number >= 0 ? number : undefined,
    id: ownId !== undefined && ownId !== '' && ownId.length <= MAX_ID_LENGTH ? ownId : undefined,
    name: ownName === '' ? undefined : ownName,
    arguments: (inner ? inner.arguments : given) ?? undefined,
    extra: Object.fromEntries(Object.entries(all).filter(([, field]) => field !== null && field !== undefined)),
  };
}

function addArguments(call: PartialCall, given: unknown, limit: number): void {
  if (given === undefined) return;
  const json = typeof given === 'string' ? given : JSON.stringify(given);
  // Whole arguments that arrive again, not as a text.
  if (typeof given !== 'string' && json === call.arguments) return;
  call.tooLong ||= call.arguments.length + json.length > limit;
  call.arguments = (call.arguments + json).slice(0, limit);
}

const hasArguments = ({ arguments: given }: Piece) => given !== undefined && given !== '';
const isComplete = (json: string) => json.trim() === '' || parseArguments(json) !== undefined;

/** Whether a piece brings arguments that the call still needs. */
function hasMoreArguments(call: PartialCall, piece: Piece): boolean {
  if (!hasArguments(piece)) return false;
  return call.arguments.trim() === '' || isPlaceholder(call.arguments) || !isComplete(call.arguments);
}

/** Whether a piece with the id of a call begins another one: some endpoints give all calls of a reply one id. */
function isAnotherOfOneId(call: PartialCall, piece: Piece): boolean {
  if (piece.name === undefined || piece.index === undefined || piece.index === call.index) return false;
  if (!hasArguments(piece)) return true;
  return isComplete(call.arguments) && call.arguments.trim() !== '' && !isPlaceholder(call.arguments);
}

const isPlaceholder = (json: string) => json.trim() === '{}';

/** Some endpoints send `{}` before the arguments themselves. */
function wholeArguments(json: string): string {
  const rest = json.trim().startsWith('{}') ? json.trim().slice(2) : '';
  return rest.trim() !== '' && parseArguments(rest) ? rest : json;
}

/** Parses the arguments of a call; undefined when they are not a JSON object. */
export function parseArguments(json: string): Fields | undefined {
  // Models send an empty string for "no arguments".
  if (json.trim() === '') return {};
  const parsed = parseJson(json);
  // Some encode the arguments twice.
  return asObject(typeof parsed === 'string' ? parseJson(parsed) : parsed);
}

/**
 * Replaces missing and duplicate ids. The made-up ones have nine letters and digits, because Mistral accepts no others.
 */
function uniqueIds(calls: readonly PartialCall[]): string[] {
  const taken = new Set(calls.map(({ id }) => id));
  const used = new Set<string>();
  let made = 0;
  const another = () => {
    let id: string;
    do id = `call${String(++made).padStart(5, '0')}`;
    while (taken.has(id));
    return id;
  };
  return calls.map(({ id }) => {
    const own = id === '' || used.has(id) ? another() : id;
    used.add(own);
    return own;
  });
}
