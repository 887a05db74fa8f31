import type { InputRequestKind, ToolServer } from '../catalogue/tool-servers.ts';
import { MISSING_CAPABILITY, MissingCapability, NEEDS_INPUT, UpstreamFault, UpstreamRefusal } from './faults.ts';

/** Questions in one answer. */
const MAX_REQUESTS = 16;
/** Of the questions of one answer, as JSON; a form of twenty fields has about 3 KiB. */
const MAX_REQUESTS_BYTES = 32 * 1024;
/** Of what a server wants back, as JSON: it comes with the caller's next message, of which 64 KiB is the bound, answers included. */
const MAX_STATE_BYTES = 16 * 1024;
/** In the `_meta` of a request: what its sender can be asked. */
export const CAPABILITIES_KEY = 'io.modelcontextprotocol/clientCapabilities';

type Json = Readonly<Record<string, unknown>>;

/** A caller who can be asked something, and what it answers to what it has been asked before. */
export interface InputExchange {
  /** What it has declared for this request (`ClientCapabilities` of MCP): whatever it likes to send. */
  readonly capabilities: Json;
  /** By the keys of the questions. */
  readonly inputResponses: Json | undefined;
  /** What the server gave with the questions, unchanged. */
  readonly requestState: string | undefined;
  /** Who asked; undefined for who was not asked, or cannot say. Another server gets neither answers nor state. */
  readonly server?: string | undefined;
}

/** A server's answer that asks its caller for something before the work goes on: `InputRequiredResult` of MCP. */
export interface InputRequests {
  /** By keys of the server's choice: requests of MCP, of the kinds that may be asked. */
  readonly inputRequests: Json;
  readonly requestState: string | undefined;
  /** Who asks. */
  readonly server: string;
}

/** Instead of a result. A class, since results may have whatever members a server gives them. */
export class InputRequiredAnswer {
  readonly inputRequests: InputRequests;

  constructor(inputRequests: InputRequests) {
    this.inputRequests = inputRequests;
  }
}

type RequestingServer = Pick<ToolServer, 'name' | 'allowedInputRequests'>;

/** What the server is told that its caller can be asked: what the caller has declared, as far as the operator allows it. */
export function capabilitiesFor(allowedKinds: readonly InputRequestKind[], declared: Json): Json {
  const allowed = requirementOf(kindsOf(declared).filter((kind) => allowedKinds.includes(kind)));
  const { sampling } = declared;
  if (!allowed.sampling || !isObject(sampling)) return allowed;
  const members = ['tools', 'context'].filter((name) => name in sampling);
  return { ...allowed, sampling: Object.fromEntries(members.map((name) => [name, {}])) };
}

/**
 * What a server wants to know, within the bounds.
 * @throws UpstreamFault when it asks in another form than MCP has, or more than anybody answers
 * @throws MissingCapability when it asks for what its caller has not declared
 * @throws UpstreamRefusal when it asks for what the operator does not allow
 */
export function parseInputRequests(
  answer: Json,
  { name, allowedInputRequests }: RequestingServer,
  { capabilities }: InputExchange,
): InputRequests {
  const { inputRequests = {}, requestState } = answer;
  if (!isObject(inputRequests)) throw broken('no questions');
  const entries = Object.entries(inputRequests);
  if (entries.length > MAX_REQUESTS) throw broken(`more than ${MAX_REQUESTS} questions`);
  if (Buffer.byteLength(JSON.stringify(inputRequests)) > MAX_REQUESTS_BYTES) {
    throw broken(`questions of more than ${MAX_REQUESTS_BYTES} bytes`);
  }
  if (requestState !== undefined && typeof requestState !== 'string') throw broken('a state that is no text');
  if (Buffer.byteLength(JSON.stringify(requestState ?? '')) > MAX_STATE_BYTES) {
    throw broken(`a state of more than ${MAX_STATE_BYTES} bytes`);
  }
  const kinds = entries.map(([, request]) => kindOf(request));
  const refusal = lacking([...new Set(kinds)], allowedInputRequests, capabilities);
  if (refusal) throw refusal;
  return { inputRequests, requestState, server: name };
}

/** The server's word that it needs more of its caller, as what this caller can be told; undefined for any other refusal. */
export function missingCapability(
  { code, data }: UpstreamRefusal,
  { allowedInputRequests }: RequestingServer,
  { capabilities }: InputExchange,
): MissingCapability | UpstreamRefusal | undefined {
  if (code !== MISSING_CAPABILITY) return undefined;
  const required = isObject(data) && isObject(data.requiredCapabilities) ? data.requiredCapabilities : {};
  return lacking(kindsOf(required), allowedInputRequests, capabilities) ?? notForwarded();
}

/** One that nobody can help with: what the operator does not allow is not the caller's to declare. */
function notForwarded(): UpstreamRefusal {
  return new UpstreamRefusal(MISSING_CAPABILITY, NEEDS_INPUT);
}

function lacking(
  kinds: readonly InputRequestKind[],
  allowedKinds: readonly InputRequestKind[],
  declared: Json,
): MissingCapability | UpstreamRefusal | undefined {
  if (kinds.some((kind) => !allowedKinds.includes(kind))) return notForwarded();
  const supported = kindsOf(capabilitiesFor(allowedKinds, declared));
  const missing = kinds.filter((kind) => !supported.includes(kind));
  return missing.length > 0 ? new MissingCapability(requirementOf(missing)) : undefined;
}

function kindOf(request: unknown): InputRequestKind {
  const { method, params } = isObject(request) ? request : {};
  if (method === 'sampling/createMessage') return 'sampling';
  if (method === 'roots/list') return 'roots';
  if (method !== 'elicitation/create') throw broken('a question of another kind than MCP has');
  return isObject(params) && params.mode === 'url' ? 'url_elicitation' : 'elicitation';
}

/** The kinds in capabilities; an elicitation without a mode is one by form. */
function kindsOf({ elicitation, sampling, roots }: Json): InputRequestKind[] {
  const kinds: InputRequestKind[] = [];
  if (isObject(elicitation) && 'url' in elicitation) kinds.push('url_elicitation');
  if (isObject(elicitation) && ('form' in elicitation || !('url' in elicitation))) kinds.push('elicitation');
  if (isObject(sampling)) kinds.push('sampling');
  if (isObject(roots)) kinds.push('roots');
  return kinds;
}

function requirementOf(kinds: readonly InputRequestKind[]): Json {
  const modes = {
    ...(kinds.includes('elicitation') ? { form: {} } : {}),
    ...(kinds.includes('url_elicitation') ? { url: {} } : {}),
  };
  return {
    ...(Object.keys(modes).length > 0 ? { elicitation: modes } : {}),
    ...(kinds.includes('sampling') ? { sampling: {} } : {}),
    ...(kinds.includes('roots') ? { roots: {} } : {}),
  };
}

function broken(what: string): UpstreamFault {
  return new UpstreamFault('broken', `its answer has ${what}`);
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
