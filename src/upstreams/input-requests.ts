import type { InputRequestKind, ToolServer } from '../catalogue/tool-servers.ts';
import { isObject } from '../lib/json.ts';
import { MISSING_CAPABILITY, MissingCapability, NEEDS_INPUT, UpstreamFault, UpstreamRefusal } from './faults.ts';

/** Maximum number of input requests per response. */
const MAX_REQUESTS = 16;
/** Maximum size of the input requests of one response as JSON; a form of twenty fields has about 3 KiB. */
const MAX_REQUESTS_BYTES = 32 * 1024;
/**
 * Maximum size of a server's state as JSON. The caller returns it with the answers in one message of at most 64 KiB.
 */
const MAX_STATE_BYTES = 16 * 1024;
/** Member of a request's `_meta` with the client capabilities of the sender. */
export const CAPABILITIES_KEY = 'io.modelcontextprotocol/clientCapabilities';

type Json = Readonly<Record<string, unknown>>;

/** Input capabilities of a caller, and its answers to earlier input requests. */
export interface InputExchange {
  /** Capabilities declared with this request (`ClientCapabilities` of MCP); untrusted. */
  readonly capabilities: Json;
  /** Answers by the keys of the input requests. */
  readonly inputResponses: Json | undefined;
  /** State that the server sent with the input requests, unchanged. */
  readonly requestState: string | undefined;
  /**
   * Server that sent the input requests; undefined if there were none or the server is not known. Other servers receive
   * neither answers nor state.
   */
  readonly server?: string | undefined;
}

/** Input requests of a server, on which the rest of the request depends: `InputRequiredResult` of MCP. */
export interface InputRequests {
  /** MCP requests of allowed kinds, by keys that the server chose. */
  readonly inputRequests: Json;
  readonly requestState: string | undefined;
  /** Server that sent the input requests. */
  readonly server: string;
}

/** Returned instead of a result. A class, because a result of a server can have arbitrary members. */
export class InputRequiredAnswer {
  readonly inputRequests: InputRequests;

  constructor(inputRequests: InputRequests) {
    this.inputRequests = inputRequests;
  }
}

type RequestingServer = Pick<ToolServer, 'name' | 'allowedInputRequests'>;

/** Returns the capabilities to declare to the server: those that the caller declared and the operator allows. */
export function capabilitiesFor(allowedKinds: readonly InputRequestKind[], declared: Json): Json {
  const allowed = requirementOf(kindsOf(declared).filter((kind) => allowedKinds.includes(kind)));
  const { sampling } = declared;
  if (!allowed.sampling || !isObject(sampling)) return allowed;
  const members = ['tools', 'context'].filter((name) => name in sampling);
  return { ...allowed, sampling: Object.fromEntries(members.map((name) => [name, {}])) };
}

/**
 * Validates the input requests of a response.
 * @throws UpstreamFault when they are not valid MCP or exceed the bounds
 * @throws MissingCapability when the caller has not declared a required capability
 * @throws UpstreamRefusal when the operator does not allow the kind of input request
 */
export function parseInputRequests(
  answer: Json,
  { name, allowedInputRequests }: RequestingServer,
  { capabilities }: InputExchange,
): InputRequests {
  const { inputRequests = {}, requestState } = answer;
  if (!isObject(inputRequests)) throw broken('invalid input requests');
  const entries = Object.entries(inputRequests);
  if (entries.length > MAX_REQUESTS) throw broken(`more than ${MAX_REQUESTS} input requests`);
  if (Buffer.byteLength(JSON.stringify(inputRequests)) > MAX_REQUESTS_BYTES) {
    throw broken(`input requests of more than ${MAX_REQUESTS_BYTES} bytes`);
  }
  if (requestState !== undefined && typeof requestState !== 'string')
    throw broken('a request state that is not a string');
  if (Buffer.byteLength(JSON.stringify(requestState ?? '')) > MAX_STATE_BYTES) {
    throw broken(`a request state of more than ${MAX_STATE_BYTES} bytes`);
  }
  const kinds = entries.map(([, request]) => kindOf(request));
  const refusal = lacking([...new Set(kinds)], allowedInputRequests, capabilities);
  if (refusal) throw refusal;
  return { inputRequests, requestState, server: name };
}

/** Converts a `MISSING_CAPABILITY` error of the server to the error for this caller; undefined for any other error. */
export function missingCapability(
  { code, data }: UpstreamRefusal,
  { allowedInputRequests }: RequestingServer,
  { capabilities }: InputExchange,
): MissingCapability | UpstreamRefusal | undefined {
  if (code !== MISSING_CAPABILITY) return undefined;
  const required = isObject(data) && isObject(data.requiredCapabilities) ? data.requiredCapabilities : {};
  return lacking(kindsOf(required), allowedInputRequests, capabilities) ?? notForwarded();
}

/** Refusal that the caller cannot resolve: the operator does not allow the kind, so declaring it would not help. */
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
  if (method !== 'elicitation/create') throw broken('an input request of an unknown kind');
  return isObject(params) && params.mode === 'url' ? 'url_elicitation' : 'elicitation';
}

/** Returns the kinds in capabilities. An elicitation without a mode means mode `form`. */
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
  return new UpstreamFault('broken', `the response has ${what}`);
}
