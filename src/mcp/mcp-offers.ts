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
import { MAX_QUESTIONS } from '../policy/quotas.ts';
import type { Allowed } from '../policy/tool-servers.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { Asked } from '../upstreams/asking.ts';
import { MissingCapability, UpstreamBusy, UpstreamFault, UpstreamRefusal } from '../upstreams/faults.ts';
import { isAllowed } from '../upstreams/offer.ts';
import type { Upstream } from '../upstreams/upstream.ts';
import { type McpAsking, type Turn, turnOf } from './mcp-asking.ts';
import type { RequestStates, StatedRequest } from './request-states.ts';

/** Servers that are asked for a resource that none of them lists, as those of templates are. */
const MAX_ASKED = 3;
/** What a connection may have under way of these, eight, must fit into what may wait for its client. */
const MAX_ANSWER_BYTES = 256 * 1024;
/** Of what a server says of a refusal. */
const MAX_WORDS = 500;

export interface McpOffersDeps {
  readonly upstreams: { readonly all: readonly Upstream[] };
  readonly states: RequestStates;
  readonly permissions: { holds(permission: string, caller: Identity): boolean };
}

type Part = 'resources' | 'prompts';

export interface ResourceRequest {
  readonly uri: string;
  /** Undefined where the caller cannot be asked anything. */
  readonly asking?: McpAsking | undefined;
}

export interface PromptRequest {
  readonly name: string;
  readonly arguments?: Readonly<Record<string, string>> | undefined;
  /** As for a resource. */
  readonly asking?: McpAsking | undefined;
}

interface NamedPrompt {
  /** As it is here. */
  readonly name: string;
  readonly prompt: Prompt;
  readonly upstream: Upstream;
}

/**
 * Resources and prompts of upstream servers, as a caller may see them: what the operator allows of a server that the
 * caller has the permission for. They cost nothing but a message. Of two resources with one URI there is the one of the
 * server that comes first; a prompt whose name is taken has its server's before it.
 */
export class McpOffers {
  readonly #deps: McpOffersDeps;

  constructor(deps: McpOffersDeps) {
    this.#deps = deps;
  }

  /** What may be asked for here at all; empty without servers that offer it. */
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
      ({ offer }) => offer.resources,
      ({ uri }) => uri,
    );
  }

  templates(caller: Identity): ResourceTemplateType[] {
    return firstOf(
      this.#open('resources', caller),
      ({ offer }) => offer.templates,
      (row) => row.uriTemplate,
    );
  }

  prompts(caller: Identity): Prompt[] {
    return this.#named(caller).map(({ name, prompt }) => ({ ...prompt, name }));
  }

  /** @throws ProtocolError for one that is not there or not for this caller, TollgateError when its server fails */
  async read(
    caller: Identity,
    { uri, asking }: ResourceRequest,
    signal: AbortSignal,
  ): Promise<ReadResourceResult | InputRequiredResult> {
    const turn = this.#turn(caller, { method: 'resources/read', name: uri, args: {}, asking });
    for (const upstream of this.#serversOf(caller, uri, turn?.before?.server)) {
      try {
        const ask = upstream.askInTurn('resources/read', { signal, asking: turn?.asking }, (client, parts) => {
          return client.readResource({ uri, ...parts.params }, { ...parts.options, cacheMode: 'bypass' });
        });
        return inTurn(await answered(ask), turn);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
    }
    throw new ResourceNotFoundError(uri);
  }

  /** @throws ProtocolError for one that is not there or not for this caller, TollgateError when its server fails */
  async prompt(
    caller: Identity,
    { name, arguments: args, asking }: PromptRequest,
    signal: AbortSignal,
  ): Promise<GetPromptResult | InputRequiredResult> {
    const { upstream, prompt } = this.#find(caller, name);
    const turn = this.#turn(caller, { method: 'prompts/get', name, args: args ?? {}, asking });
    const ask = upstream.askInTurn('prompts/get', { signal, asking: turn?.asking }, (client, parts) => {
      const given = args ? { arguments: { ...args } } : {};
      return client.getPrompt({ name: prompt.name, ...given, ...parts.params }, parts.options);
    });
    return inTurn(await answered(ask), turn);
  }

  /** Which servers may have the resource; that which has asked, for an answer to it. */
  #serversOf(caller: Identity, uri: string, asked: string | undefined): Upstream[] {
    const open = this.#open('resources', caller).filter(
      ({ server }) => server.resources && isAllowed(server.resources, uri),
    );
    if (asked !== undefined) return open.filter(({ server }) => server.name === asked);
    const listed = open.find(({ offer }) => offer.resources.some((one) => one.uri === uri));
    return listed ? [listed] : open.filter(({ offer }) => offer.templates.length > 0).slice(0, MAX_ASKED);
  }

  #turn(
    { userId }: Identity,
    { asking, ...request }: Pick<StatedRequest, 'method' | 'name' | 'args'> & { asking: McpAsking | undefined },
  ): Turn | undefined {
    return asking && turnOf(this.#deps.states, { ...request, userId, idempotencyKey: undefined }, asking);
  }

  /** Values for an argument of a prompt or of a template; none from a server that completes nothing. */
  async complete(caller: Identity, params: CompleteRequest['params'], signal: AbortSignal): Promise<CompleteResult> {
    const { upstream, ref } = this.#referred(caller, params.ref);
    const work = upstream.ask('completion/complete', signal, async (client, options): Promise<CompleteResult> => {
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
    const has = ({ offer }: Upstream) => offer.templates.some(({ uriTemplate }) => uriTemplate === ref.uri);
    const upstream = this.#open('resources', caller).find(has);
    if (!upstream) throw new ResourceNotFoundError(ref.uri);
    return { upstream, ref };
  }

  #find(caller: Identity, name: string): NamedPrompt {
    const found = this.#named(caller).find((one) => one.name === name);
    if (!found) throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'Prompt not found', { name });
    return found;
  }

  /** Over all servers, whoever asks: what a name means must not follow from what its caller may see. */
  #named(caller: Identity): NamedPrompt[] {
    const taken = new Set<string>();
    const all = this.#deps.upstreams.all.flatMap((upstream) => {
      return upstream.offer.prompts.map((prompt) => {
        const name = taken.has(prompt.name) ? `${upstream.server.name}__${prompt.name}` : prompt.name;
        taken.add(name);
        return { name, prompt, upstream };
      });
    });
    return all.filter(({ upstream }) => this.#mayUse(upstream.server.prompts, caller));
  }

  #open(part: Part, caller: Identity): Upstream[] {
    return this.#deps.upstreams.all.filter(({ server }) => this.#mayUse(server[part], caller));
  }

  #mayUse(allowed: Allowed | undefined, caller: Identity): boolean {
    return allowed !== undefined && this.#deps.permissions.holds(allowed.permission, caller);
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

/** A result as it is; questions with what is needed to go on with their answer. */
function inTurn<T extends object>(answer: T | Asked, turn: Turn | undefined): T | InputRequiredResult {
  if (!(answer instanceof Asked)) return answer;
  const asked = (turn?.before?.asked ?? 0) + 1;
  if (turn && asked <= MAX_QUESTIONS) return turn.ask(answer.questions, { asked });
  throw new TollgateError('TOOL_FAILED', {
    text: `The server of this has asked ${MAX_QUESTIONS} times and asks again.`,
  });
}

/** What a server answers; its refusal goes on in its words, its failure in ours. */
async function answered<T>(work: Promise<T>): Promise<T> {
  try {
    const answer = await work;
    if (Buffer.byteLength(JSON.stringify(answer)) <= MAX_ANSWER_BYTES) return answer;
    throw new TollgateError('TOOL_FAILED', { text: `This is larger than ${MAX_ANSWER_BYTES} bytes.` });
  } catch (thrown) {
    if (thrown instanceof UpstreamRefusal) {
      throw new ProtocolError(ProtocolErrorCode.InvalidParams, thrown.message.slice(0, MAX_WORDS).toWellFormed());
    }
    if (thrown instanceof MissingCapability) {
      throw new TollgateError('MISSING_CLIENT_CAPABILITY', { fields: { requiredCapabilities: thrown.required } });
    }
    if (thrown instanceof UpstreamFault) {
      throw new TollgateError('TOOL_FAILED', { text: 'The server of this gave no usable answer; try again later.' });
    }
    if (thrown instanceof UpstreamBusy) {
      throw new TollgateError('TOOL_FAILED', {
        text: 'The server of this does not answer at present; try again later.',
      });
    }
    throw thrown;
  }
}
