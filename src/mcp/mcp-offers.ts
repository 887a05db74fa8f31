import {
  type CompleteRequest,
  type CompleteResult,
  type GetPromptResult,
  type Prompt,
  ProtocolError,
  ProtocolErrorCode,
  type ReadResourceResult,
  type Resource,
  ResourceNotFoundError,
  type ResourceTemplateType,
  type ServerCapabilities,
} from '@modelcontextprotocol/server';
import type { Allowed } from '../policy/tool-servers.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { UpstreamBusy, UpstreamFault, UpstreamRefusal } from '../upstreams/faults.ts';
import { isAllowed } from '../upstreams/offer.ts';
import type { Upstream } from '../upstreams/upstream.ts';

/** Servers that are asked for a resource that none of them lists, as those of templates are. */
const MAX_ASKED = 3;
/** What a connection may have under way of these, eight, must fit into what may wait for its client. */
const MAX_ANSWER_BYTES = 256 * 1024;
/** Of what a server says of a refusal. */
const MAX_WORDS = 500;

export interface McpOffersDeps {
  readonly upstreams: { readonly all: readonly Upstream[] };
  readonly permissions: { holds(permission: string, caller: Identity): boolean };
}

type Part = 'resources' | 'prompts';

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
  async read(caller: Identity, uri: string, signal: AbortSignal): Promise<ReadResourceResult> {
    const open = this.#open('resources', caller).filter(
      ({ server }) => server.resources && isAllowed(server.resources, uri),
    );
    const listed = open.find(({ offer }) => offer.resources.some((one) => one.uri === uri));
    const asked = listed ? [listed] : open.filter(({ offer }) => offer.templates.length > 0).slice(0, MAX_ASKED);
    for (const upstream of asked) {
      try {
        const ask = upstream.ask('resources/read', signal, (client, options) => {
          return client.readResource({ uri }, { ...options, cacheMode: 'bypass' });
        });
        return await answered(ask);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
      }
    }
    throw new ResourceNotFoundError(uri);
  }

  /** @throws ProtocolError for one that is not there or not for this caller, TollgateError when its server fails */
  async prompt(
    caller: Identity,
    {
      name,
      arguments: args,
    }: { readonly name: string; readonly arguments?: Readonly<Record<string, string>> | undefined },
    signal: AbortSignal,
  ): Promise<GetPromptResult> {
    const { upstream, prompt } = this.#find(caller, name);
    const params = { name: prompt.name, ...(args ? { arguments: { ...args } } : {}) };
    return answered(upstream.ask('prompts/get', signal, (client, options) => client.getPrompt(params, options)));
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
