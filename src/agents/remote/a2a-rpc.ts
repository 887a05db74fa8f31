import type { A2aSettings } from '../../catalogue/remote-agents.ts';
import type { Fields } from '../../protocol/messages.ts';
import { asList, asNumber, asObject, asText } from '../model/json.ts';
import type { RemoteBody } from './body.ts';
import { Budget } from './budget.ts';
import type { RemoteClient } from './client.ts';
import { RemoteFault } from './fault.ts';
import type { Turn } from './turn.ts';

const EVENT_STREAM = 'text/event-stream';
export const A2A_VERSION = { 'a2a-version': '1.0' };
/** Error codes of A2A 1.0 (section 9.5 of its specification). */
const TASK_NOT_FOUND = -32001;
const VERSION_NOT_SUPPORTED = -32009;

/** The part of an agent card about the JSON-RPC binding. */
interface Interface {
  readonly url: string;
  readonly tenant: string | undefined;
  readonly streams: boolean;
}

/** The JSON-RPC binding of A2A 1.0, as a client. Errors come with HTTP 200. */
export class A2aRpc {
  readonly #client: RemoteClient;
  readonly #settings: A2aSettings;
  readonly #turn: Turn<A2aSettings>;
  #interface: Interface | undefined;

  constructor(turn: Turn<A2aSettings>) {
    this.#turn = turn;
    this.#client = turn.client;
    this.#settings = turn.settings;
  }

  /** Whether the agent streams, by its card. @throws RemoteFault */
  async streams(): Promise<boolean> {
    return (await this.#found()).streams;
  }

  /** @throws RemoteFault; not_resumable for a task that the agent does not have */
  async call(method: string, params: Fields, signal: AbortSignal): Promise<Fields> {
    // Of its own: polls of a task that takes hours are not output of the agent.
    const budget = new Budget(this.#settings);
    const body = await this.#send(method, params, 'application/json', { signal, budget });
    return resultOf(await body.json());
  }

  /** Yields the results of a stream. @throws RemoteFault */
  async *stream(method: string, params: Fields): AsyncGenerator<Fields, void> {
    const { context, budget } = this.#turn;
    const scope = { signal: context.signal, budget };
    const body = await this.#send(method, params, EVENT_STREAM, scope);
    if (body.contentType !== EVENT_STREAM) {
      yield resultOf(await body.json());
      return;
    }
    for await (const value of body.events()) yield resultOf(value);
  }

  async #send(
    method: string,
    params: Fields,
    accept: string,
    scope: { readonly signal: AbortSignal; readonly budget: Budget },
  ): Promise<RemoteBody> {
    const { url, tenant } = await this.#found();
    const sent = tenant === undefined ? params : { tenant, ...params };
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params: sent });
    return this.#client.open({ url, accept, headers: A2A_VERSION, body }, scope);
  }

  /** Reads the agent card once per turn. Without a card, requests go to the address of the agent. */
  async #found(): Promise<Interface> {
    this.#interface ??= await this.#read();
    return this.#interface;
  }

  async #read(): Promise<Interface> {
    const { context } = this.#turn;
    const url = this.#client.resolve(this.#settings.card);
    const scope = { signal: context.signal, budget: new Budget(this.#settings) };
    try {
      const body = await this.#client.open(
        { method: 'GET', url, accept: 'application/json', headers: A2A_VERSION },
        scope,
      );
      return this.#interfaceOf(await body.json());
    } catch (thrown) {
      if (!(thrown instanceof RemoteFault) || thrown.details.status !== 404) throw thrown;
      return { url: this.#settings.url, tenant: undefined, streams: true };
    }
  }

  #interfaceOf(card: unknown): Interface {
    const { url, ...rest } = jsonRpcInterface(card);
    return { url: this.#client.resolve(url), ...rest };
  }
}

/** Reads an agent card. @throws RemoteFault for a card without a JSON-RPC interface of version 1 */
export function jsonRpcInterface(card: unknown): Interface {
  const { supportedInterfaces, capabilities } = asObject(card) ?? {};
  const offered = asList(supportedInterfaces).map(asObject);
  const found = offered.find((one) => {
    return one?.protocolBinding === 'JSONRPC' && String(one.protocolVersion ?? '1.0').startsWith('1.');
  });
  const url = asText(found?.url);
  if (url === undefined) throw new RemoteFault('invalid', 'the agent card has no JSON-RPC interface of version 1');
  const tenant = asText(found?.tenant) || undefined;
  return { url, tenant, streams: asObject(capabilities)?.streaming !== false };
}

/** @throws RemoteFault for an error of JSON-RPC */
function resultOf(value: unknown): Fields {
  const message = asObject(value);
  const result = asObject(message?.result);
  if (result) return result;
  const error = asObject(message?.error);
  if (!error) throw new RemoteFault('invalid', 'a message is no JSON-RPC response');
  const code = asNumber(error.code);
  if (code === TASK_NOT_FOUND) throw new RemoteFault('not_resumable', 'the agent does not have the task any more');
  if (code === VERSION_NOT_SUPPORTED) throw new RemoteFault('refused', 'the agent does not support A2A 1.0');
  throw new RemoteFault('error', 'the agent answered a JSON-RPC error', { agentCode: String(code ?? '') });
}
