import { TRANSPORTS, type TransportName } from '../clients.ts';
import { isTerminalType } from '../runs.ts';
import { CallingClient, Lost, type Message } from './calling-client.ts';
import type { Random } from './random.ts';

export interface ChaosUser {
  readonly userId: string;
  readonly token: string;
  /** Threads created by its calls. The product keeps 500 per user, and removed ones could not be counted. */
  threads: number;
}

/** The outcome of one call, as a client received it. */
export interface ToolAnswer {
  readonly callId: string;
  readonly success: boolean;
}

/** Observations of all clients at the end of a chaos test. */
export class Observations {
  /** Answers by user and idempotency key; each key has one. */
  readonly keyed = new Map<string, ToolAnswer & { readonly userId: string }>();
  /** Answers to calls without a key, each of which was sent once. */
  readonly unkeyed: ToolAnswer[] = [];
  /** Calls without a key that were sent, whatever their outcome. */
  unkeyedSent = 0;
  /** The user of each run, by request id. */
  readonly runs = new Map<string, string>();
  /** Repeated requests: after a loss, unnecessarily, and concurrently by two clients. */
  readonly repeated = { afterLoss: 0, needlessly: 0, atOnce: 0 };
  readonly refusals = new Map<string, number>();
  /** Answers that contradict others. */
  readonly contradictions: string[] = [];

  /** Number of requested tool calls: a run makes two. */
  get requested(): number {
    return this.keyed.size + this.unkeyedSent + 2 * this.runs.size;
  }
}

export interface CallerDeps {
  readonly urls: readonly string[];
  readonly random: Random;
  readonly observations: Observations;
  /** Aborted when the chaos test ends early. */
  readonly signal: AbortSignal;
}

/** Longer than the sweep needs to end an interrupted call. */
const ANSWER_MS = 40_000;
const RUN_MS = 60_000;
const RECONNECT_MS = 50;
const GIVE_UP_MS = 120_000;
/** Above this a user creates no more threads. Interrupted calls create some of them. */
const THREADS_PER_USER = 440;

/** A final refusal. Users of this test may do everything, so it is a fault. */
class Refused extends Error {}

interface Call {
  readonly key: string | undefined;
  readonly tool: string;
  readonly args: Readonly<Record<string, unknown>>;
}

/**
 * A user with connections to two nodes, one raw and one over Socket.IO, who does one thing at a time over either. It
 * repeats requests with an idempotency key or request id until they are answered, and sends others once.
 */
export class Caller {
  readonly #deps: CallerDeps;
  readonly #user: ChaosUser;
  readonly #name: string;
  readonly #clients: (CallingClient | undefined)[] = [undefined, undefined];
  #number = 0;

  /** @param name unique among the callers */
  constructor(deps: CallerDeps, user: ChaosUser, name: string) {
    this.#deps = deps;
    this.#user = user;
    this.#name = name;
  }

  /** @throws Error if a request was refused for good, or not answered within two minutes */
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

  /** Ignores the outcome. */
  async #callOnce(): Promise<void> {
    const { random, observations } = this.#deps;
    const at = random.below(2);
    const client = await this.#withRetries(() => this.#client(at));
    observations.unkeyedSent += 1;
    const answer = await this.#attempt(client, this.#call(undefined)).catch(rethrowUnlessLost);
    if (answer) observations.unkeyed.push(answer);
  }

  /** An agent run that creates a thread and lists the threads. */
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
        // One thread for all runs of the user, so that runs themselves create no more.
        thread_id: mainThread(this.#user.userId),
      };
      const isAnswer = ({ type, fields }: Message) =>
        (type === 'agent_accepted' || type === 'error') && fields.request_id === requestId;
      const answer = client.request('agent_request', request, isAnswer, ANSWER_MS);
      // A client that reconnects later finds the end of the run in the log.
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

  /** @param hangUp disconnect right after sending the first attempt */
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

  /** Repeats `work` after a loss. @throws any other error of `work`, or the last loss after two minutes */
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

  /** Resolves with the answer to one attempt. @throws Lost without an answer or if it asks for a retry; Refused */
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

  /**
   * Returns the connection of that index, and reconnects to a random node if it has ended. @throws Lost if the node is
   * unavailable
   */
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

/** Returns the thread of all runs of a user. */
export function mainThread(userId: string): string {
  return `thread_of_${userId}`;
}

function rethrowUnlessLost(error: unknown): undefined {
  if (!(error instanceof Lost)) throw error;
}
