import {
  type CompleteRequest,
  type CompleteResult,
  type GetPromptResult,
  type InputRequiredResult,
  type Prompt,
  ProtocolError,
  ProtocolErrorCode,
  type ReadResourceResult,
  type Resource,
  ResourceNotFoundError,
  type ResourceTemplateType,
  type ServerCapabilities,
} from '@modelcontextprotocol/server';
import type { Allowed } from '../catalogue/tool-servers.ts';
import { MAX_INPUT_ROUNDS } from '../limits/quotas.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { isAllowed } from '../upstreams/capabilities.ts';
import { MissingCapability, UpstreamBusy, UpstreamFault, UpstreamRefusal } from '../upstreams/faults.ts';
import { type InputExchange, InputRequiredAnswer } from '../upstreams/input-requests.ts';
import type { Upstream } from '../upstreams/upstream.ts';
import { type InputRound, openInputRound } from './mcp-input-requests.ts';
import type { RequestStates, StatedRequest } from './request-states.ts';

/** Maximum number of servers tried for a resource that no server lists, such as one that matches a template. */
const MAX_SERVERS_TRIED = 3;
/** Maximum size of a response. Eight of them, the requests in flight per connection, must fit into its output bound. */
const MAX_ANSWER_BYTES = 256 * 1024;
/** Maximum length of the text of a server's refusal. */
const MAX_CHARACTERS = 500;

export interface McpResourcesDeps {
  readonly upstreams: { readonly all: readonly Upstream[] };
  readonly states: RequestStates;
  readonly permissions: { has(permission: string, caller: Identity): boolean };
}

type Part = 'resources' | 'prompts';

export interface ResourceRequest {
  readonly uri: string;
  /** Undefined when the caller cannot receive input requests. */
  readonly input?: InputExchange | undefined;
}

export interface PromptRequest {
  readonly name: string;
  readonly arguments?: Readonly<Record<string, string>> | undefined;
  /** Undefined when the caller cannot receive input requests. */
  readonly input?: InputExchange | undefined;
}

interface NamedPrompt {
  /** Name in this gateway; it can differ from the name on the server. */
  readonly name: string;
  readonly prompt: Prompt;
  readonly upstream: Upstream;
}

/**
 * Serves resources and prompts of upstreams. A caller sees those that the operator allows, if it has the permission for
 * them. A request costs one message and no units. If several servers list the same URI, the first server is used. A
 * prompt whose name is already used gets the name of its server as a prefix.
 */
export class McpResources {
  readonly #deps: McpResourcesDeps;

  constructor(deps: McpResourcesDeps) {
    this.#deps = deps;
  }

  /** Capabilities of this gateway; empty without servers that have resources or prompts. */
  get capabilities(): Pick<ServerCapabilities, 'resources' | 'prompts' | 'completions'> {
    const { all } = this.#deps.upstreams;
    const [resources, prompts] = [all.some(({ server }) => server.resources), all.some(({ server }) => server.prompts)];
    return {
      ...(resources ? { resources: {} } : {}),
      ...(prompts ? { prompts: {} } : {}),
      ...(resources || prompts ? { completions: {} } : {}),
    };
  }

  resources(caller: Identity): Resource[] {
    return firstOf(
      this.#open('resources', caller),
      ({ capabilities }) => capabilities.resources,
      ({ uri }) => uri,
    );
  }

  templates(caller: Identity): ResourceTemplateType[] {
    return firstOf(
      this.#open('resources', caller),
      ({ capabilities }) => capabilities.templates,
      (row) => row.uriTemplate,
    );
  }

  prompts(caller: Identity): Prompt[] {
    return this.#named(caller).map(({ name, prompt }) => ({ ...prompt, name }));
  }

  /** @throws ProtocolError when it does not exist or is hidden from the caller; TollgateError when its server fails */
  async read(
    caller: Identity,
    { uri, input }: ResourceRequest,
    signal: AbortSignal,
  ): Promise<ReadResourceResult | InputRequiredResult> {
    const round = this.#openRound(caller, { method: 'resources/read', name: uri, args: {}, input });
    for (const upstream of this.#serversOf(caller, uri, round?.before?.server)) {
      try {
        const response = upstream.requestWithInput(
          'resources/read',
          { signal, input: round?.input },
          (client, exchange) => {
            return client.readResource({ uri, ...exchange.params }, { ...exchange.options, cacheMode: 'bypass' });
          },
        );
        return endInputRound(await answered(response), round);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
    }
    throw new ResourceNotFoundError(uri);
  }

  /** @throws ProtocolError when it does not exist or is hidden from the caller; TollgateError when its server fails */
  async prompt(
    caller: Identity,
    { name, arguments: args, input }: PromptRequest,
    signal: AbortSignal,
  ): Promise<GetPromptResult | InputRequiredResult> {
    const { upstream, prompt } = this.#find(caller, name);
    const round = this.#openRound(caller, { method: 'prompts/get', name, args: args ?? {}, input });
    const response = upstream.requestWithInput('prompts/get', { signal, input: round?.input }, (client, exchange) => {
      const promptArguments = args ? { arguments: { ...args } } : {};
      return client.getPrompt({ name: prompt.name, ...promptArguments, ...exchange.params }, exchange.options);
    });
    return endInputRound(await answered(response), round);
  }

  /** Returns the servers that may have the resource. For an answer, only the server that sent the input request. */
  #serversOf(caller: Identity, uri: string, requesting: string | undefined): Upstream[] {
    const open = this.#open('resources', caller).filter(
      ({ server }) => server.resources && isAllowed(server.resources, uri),
    );
    if (requesting !== undefined) return open.filter(({ server }) => server.name === requesting);
    const listed = open.find(({ capabilities }) => capabilities.resources.some((one) => one.uri === uri));
    return listed
      ? [listed]
      : open.filter(({ capabilities }) => capabilities.templates.length > 0).slice(0, MAX_SERVERS_TRIED);
  }

  #openRound(
    { userId }: Identity,
    { input, ...request }: Pick<StatedRequest, 'method' | 'name' | 'args'> & { input: InputExchange | undefined },
  ): InputRound | undefined {
    return input && openInputRound(this.#deps.states, { ...request, userId, idempotencyKey: undefined }, input);
  }

  /** Completes an argument of a prompt or template. Returns no values if the server does not support completion. */
  async complete(caller: Identity, params: CompleteRequest['params'], signal: AbortSignal): Promise<CompleteResult> {
    const { upstream, ref } = this.#referred(caller, params.ref);
    const work = upstream.request('completion/complete', signal, async (client, options): Promise<CompleteResult> => {
      if (!client.getServerCapabilities()?.completions) return { completion: { values: [] } };
      return client.complete({ ...params, ref }, options);
    });
    return answered(work);
  }

  #referred(caller: Identity, ref: CompleteRequest['params']['ref']): { upstream: Upstream; ref: typeof ref } {
    if (ref.type === 'ref/prompt') {
      const { upstream, prompt } = this.#find(caller, ref.name);
      return { upstream, ref: { ...ref, name: prompt.name } };
    }
    const has = ({ capabilities }: Upstream) =>
      capabilities.templates.some(({ uriTemplate }) => uriTemplate === ref.uri);
    const upstream = this.#open('resources', caller).find(has);
    if (!upstream) throw new ResourceNotFoundError(ref.uri);
    return { upstream, ref };
  }

  #find(caller: Identity, name: string): NamedPrompt {
    const found = this.#named(caller).find((one) => one.name === name);
    if (!found) throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'Prompt not found', { name });
    return found;
  }

  /** Assigns names over all servers before filtering, so that a name has the same meaning for every caller. */
  #named(caller: Identity): NamedPrompt[] {
    const seen = new Set<string>();
    const all = this.#deps.upstreams.all.flatMap((upstream) => {
      return upstream.capabilities.prompts.map((prompt) => {
        const name = seen.has(prompt.name) ? `${upstream.server.name}__${prompt.name}` : prompt.name;
        seen.add(name);
        return { name, prompt, upstream };
      });
    });
    return all.filter(({ upstream }) => this.#mayUse(upstream.server.prompts, caller));
  }

  #open(part: Part, caller: Identity): Upstream[] {
    return this.#deps.upstreams.all.filter(({ server }) => this.#mayUse(server[part], caller));
  }

  #mayUse(allowed: Allowed | undefined, caller: Identity): boolean {
    return allowed !== undefined && this.#deps.permissions.has(allowed.permission, caller);
  }
}

function firstOf<Row>(
  upstreams: readonly Upstream[],
  rows: (upstream: Upstream) => readonly Row[],
  key: (row: Row) => string,
): Row[] {
  const byKey = new Map<string, Row>();
  for (const row of upstreams.flatMap(rows)) if (!byKey.has(key(row))) byKey.set(key(row), row);
  return [...byKey.values()];
}

/** Returns a result unchanged. Returns input requests with the request state that continues the request. */
function endInputRound<T extends object>(
  answer: T | InputRequiredAnswer,
  round: InputRound | undefined,
): T | InputRequiredResult {
  if (!(answer instanceof InputRequiredAnswer)) return answer;
  const inputRound = (round?.before?.asked ?? 0) + 1;
  if (round && inputRound <= MAX_INPUT_ROUNDS) return round.requireInput(answer.inputRequests, { asked: inputRound });
  throw new TollgateError('TOOL_FAILED', {
    text: `The server exceeded the limit of ${MAX_INPUT_ROUNDS} input rounds.`,
  });
}

/** Bounds the response and converts errors: a refusal keeps the server's text, a failure gets a text of the gateway. */
async function answered<T>(work: Promise<T>): Promise<T> {
  try {
    const answer = await work;
    if (Buffer.byteLength(JSON.stringify(answer)) <= MAX_ANSWER_BYTES) return answer;
    throw new TollgateError('TOOL_FAILED', { text: `The response is larger than ${MAX_ANSWER_BYTES} bytes.` });
  } catch (thrown) {
    if (thrown instanceof UpstreamRefusal) {
      throw new ProtocolError(ProtocolErrorCode.InvalidParams, thrown.message.slice(0, MAX_CHARACTERS).toWellFormed());
    }
    if (thrown instanceof MissingCapability) {
      throw new TollgateError('MISSING_CLIENT_CAPABILITY', { fields: { requiredCapabilities: thrown.required } });
    }
    if (thrown instanceof UpstreamFault) {
      throw new TollgateError('TOOL_FAILED', { text: 'The server returned no usable response. Try again later.' });
    }
    if (thrown instanceof UpstreamBusy) {
      throw new TollgateError('TOOL_FAILED', {
        text: 'The server is busy or has failed repeatedly. Try again later.',
      });
    }
    throw thrown;
  }
}
