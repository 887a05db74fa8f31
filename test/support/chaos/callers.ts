import { TRANSPORTS, type TransportName } from '../clients.ts';
import { isTerminalType } from '../runs.ts';
import { CallingClient, Lost, type Message } from './calling-client.ts';
import type { Random } from './random.ts';

export interface ChaosUser {
  readonly userId: string;
  readonly token: string;
  /** Made by its calls so far: the product keeps 500 a user, and those that gave way could not be counted. */
  threads: number;
}

/** What a client was told of one call. */
export interface ToolAnswer {
  readonly callId: string;
  readonly success: boolean;
}

/** All that the clients of a campaign know at its end. */
export class Observations {
  /** By user and idempotency key; every one of them has been answered. */
  readonly keyed = new Map<string, ToolAnswer & { readonly userId: string }>();
  /** Answers of calls without a key, each sent once. */
  readonly unkeyed: ToolAnswer[] = [];
  /** Calls without a key that were sent, whatever came of them. */
  unkeyedSent = 0;
  /** By request id: whose run it is. */
  readonly runs = new Map<string, string>();
  /** Sent again after a loss, without need, and by two clients at once. */
  readonly repeated = { afterLoss: 0, needlessly: 0, atOnce: 0 };
  readonly refusals = new Map<string, number>();
  /** Answers that contradict others. */
  readonly contradictions: string[] = [];

  /** Tool calls asked for: a run makes two. */
  get requested(): number {
    return this.keyed.size + this.unkeyedSent + 2 * this.runs.size;
  }
}

export interface CallerDeps {
  readonly urls: readonly string[];
  readonly random: Random;
  readonly observations: Observations;
  /** The campaign has been given up. */
  readonly signal: AbortSignal;
}

/** Longer than a call that was cut off takes to be ended by the sweep. */
const ANSWER_MS = 40_000;
const RUN_MS = 60_000;
const RECONNECT_MS = 50;
const GIVE_UP_MS = 120_000;
/** Beyond it a user makes no more threads, some of which come from calls that were cut off. */
const THREADS_PER_USER = 440;

/** One refused for good: in a campaign whose users may do everything, that is a fault. */
class Refused extends Error {}

interface Call {
  readonly key: string | undefined;
  readonly tool: string;
  readonly args: Readonly<Record<string, unknown>>;
}

/**
 * A user with two connections to two nodes, one raw and one over Socket.IO, and one thing at a time to do over either.
 * Whatever has an idempotency key or a request id is repeated until it is answered; what has none is sent once.
 */
export class Caller {
  readonly #deps: CallerDeps;
  readonly #user: ChaosUser;
  readonly #name: string;
  readonly #clients: (CallingClient | undefined)[] = [undefined, undefined];
  #number = 0;

  /** @param name no other lane's */
  constructor(deps: CallerDeps, user: ChaosUser, name: string) {
    this.#deps = deps;
    this.#user = user;
    this.#name = name;
  }

  /** @throws Error when something was refused for good, or not answered within two minutes */
  async work(tasks: number): Promise<void> {
    const { random, signal } = this.#deps;
    try {
      for (let task = 0; task < tasks && !signal.aborted; task++) {
        this.#number += 1;
        if (random.chance(0.06)) await this.#run();
        else if (random.chance(0.15)) await this.#callOnce();
        else await this.#callWithKey();
      }
    } finally {
      this.close();
    }
  }

  close(): void {
    for (const client of this.#clients) client?.end();
  }

  async #callWithKey(): Promise<void> {
    const { random, observations } = this.#deps;
    const key = `key_${this.#name}_${this.#number}`;
    const call = this.#call(key);
    const first = random.below(2);
    if (random.chance(0.04)) {
      observations.repeated.atOnce += 1;
      const both = await Promise.all([this.#untilAnswered(call, first), this.#untilAnswered(call, 1 - first)]);
      for (const answer of both) this.#note(key, answer);
      return;
    }
    this.#note(key, await this.#untilAnswered(call, first, random.chance(0.03)));
    if (!random.chance(0.05)) return;
    observations.repeated.needlessly += 1;
    this.#note(key, await this.#untilAnswered(call, 1 - first));
  }

  /** Whatever comes of it. */
  async #callOnce(): Promise<void> {
    const { random, observations } = this.#deps;
    const at = random.below(2);
    const client = await this.#withRetries(() => this.#client(at));
    observations.unkeyedSent += 1;
    const answer = await this.#attempt(client, this.#call(undefined)).catch(rethrowUnlessLost);
    if (answer) observations.unkeyed.push(answer);
  }

  /** An agent that makes a thread and reads the list of them. */
  async #run(): Promise<void> {
    const requestId = `run_${this.#name}_${this.#number}`;
    this.#deps.observations.runs.set(requestId, this.#user.userId);
    this.#user.threads += 1;
    const at = this.#deps.random.below(2);
    await this.#withRetries(async () => {
      const client = await this.#client(at);
      const ended = client.next(({ type, fields }) => isTerminalType(type) && fields.request_id === requestId, RUN_MS);
      const request = {
        message: `Start a thread called "${requestId}"`,
        request_id: requestId,
        // One for all runs of the user, so that runs themselves make no more.
        thread_id: mainThread(this.#user.userId),
      };
      const isAnswer = ({ type, fields }: Message) =>
        (type === 'agent_accepted' || type === 'error') && fields.request_id === requestId;
      const answer = client.request('agent_request', request, isAnswer, ANSWER_MS);
      // Whoever comes back later reads of its end in the log.
      const end = ended.catch(rethrowUnlessLost);
      const { type, fields } = await answer;
      if (type === 'error') throw this.#refusal(fields);
      await end;
    });
  }

  #call(key: string | undefined): Call {
    const { random } = this.#deps;
    const dice = random.next();
    if (dice < 0.7 && this.#user.threads < THREADS_PER_USER) {
      this.#user.threads += 1;
      return { key, tool: 'create_thread', args: { title: key ?? `once_${this.#name}_${this.#number}` } };
    }
    if (dice < 0.85) return { key, tool: 'analyze_workload', args: { hours: 24 } };
    return { key, tool: 'list_agents', args: {} };
  }

  /** @param hangUp drop the connection right after the first attempt was sent */
  #untilAnswered(call: Call, at: number, hangUp = false): Promise<ToolAnswer> {
    let attempts = 0;
    return this.#withRetries(async () => {
      const client = await this.#client(at);
      if (attempts > 0) this.#deps.observations.repeated.afterLoss += 1;
      attempts += 1;
      const answer = this.#attempt(client, call);
      if (hangUp && attempts === 1) setTimeout(() => client.end(), this.#deps.random.below(5));
      return answer;
    });
  }

  /** Does `work` again after a loss. @throws what else it throws, or the last loss after two minutes */
  async #withRetries<T>(work: () => Promise<T>): Promise<T> {
    const deadlineAt = performance.now() + GIVE_UP_MS;
    for (;;) {
      try {
        return await work();
      } catch (error) {
        const { signal } = this.#deps;
        if (!(error instanceof Lost) || performance.now() > deadlineAt || signal.aborted) throw error;
        await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
      }
    }
  }

  /** The answer, once. @throws Lost when there is none, or one that asks to try again; Refused */
  async #attempt(client: CallingClient, { key, tool, args }: Call): Promise<ToolAnswer> {
    const request_id = `req_${this.#name}_${this.#number}_${this.#deps.random.below(2 ** 32)}`;
    const request = { tool, arguments: args, request_id, ...(key === undefined ? {} : { idempotency_key: key }) };
    const isAnswer = ({ type, fields }: Message) =>
      (type === 'tool_result' || type === 'error') && fields.request_id === request_id;
    const { type, fields } = await client.request('tool_call', request, isAnswer, ANSWER_MS);
    if (type === 'error') throw this.#refusal(fields);
    return { callId: String(fields.tool_call_id), success: fields.success === true };
  }

  #refusal({ code, message, retryable }: Message['fields']): Error {
    const { refusals } = this.#deps.observations;
    const name = String(code);
    refusals.set(name, (refusals.get(name) ?? 0) + 1);
    return retryable === true ? new Lost(name) : new Refused(`${name}: ${message}`);
  }

  #note(key: string, answer: ToolAnswer): void {
    const { keyed, contradictions } = this.#deps.observations;
    const existing = keyed.get(key);
    if (existing && (existing.callId !== answer.callId || existing.success !== answer.success)) {
      contradictions.push(`${key}: ${JSON.stringify(existing)} and ${JSON.stringify(answer)}`);
    }
    if (!existing) keyed.set(key, { ...answer, userId: this.#user.userId });
  }

  /** The connection of that place, made anew on a random node when it is over. @throws Lost when that one is away */
  async #client(at: number): Promise<CallingClient> {
    const existing = this.#clients[at];
    if (existing && !existing.isOver) return existing;
    const { urls, random } = this.#deps;
    const url = urls[random.below(urls.length)] ?? '';
    const transport: TransportName = TRANSPORTS[at] ?? 'ws';
    const { client } = await CallingClient.open({ transport, url, token: this.#user.token });
    this.#clients[at] = client;
    return client;
  }
}

/** The thread that all runs of a user are in. */
export function mainThread(userId: string): string {
  return `thread_of_${userId}`;
}

function rethrowUnlessLost(error: unknown): undefined {
  if (!(error instanceof Lost)) throw error;
}
