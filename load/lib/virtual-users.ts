import { randomBytes } from 'node:crypto';
import { Arrivals } from './arrivals.ts';
import type { Iteration } from './iteration.ts';
import { Measures } from './measures.ts';
import { type IterationKind, type Mix, type Transport, WeightedPicker } from './mix.ts';
import { LoadUser } from './user.ts';

/** Iterations that wait for a free user; further ones are dropped and counted. */
const MAX_BACKLOG = 10_000;
/**
 * Concurrent handshakes. A node accepts 50 per address (`PENDING_CONNECTIONS_PER_ADDRESS`), and all users share one
 * address.
 */
const MAX_CONNECTING = 30;
const END_POLL_MS = 50;

/** The share of one thread. */
export interface VirtualUsersPlan {
  readonly url: string;
  readonly mix: Mix;
  /** One per user. */
  readonly tokens: readonly string[];
  /** Of the users of this thread. */
  readonly transports: readonly Transport[];
  readonly iterationsPerSecond: number;
  readonly connectsPerSecond: number;
  /** Number of threads that share the limit of pending connections. */
  readonly threads: number;
}

/** The virtual users of one thread. Assigns each due iteration to a free user. */
export class VirtualUsers {
  readonly measures: Measures = new Measures();
  readonly #plan: VirtualUsersPlan;
  readonly #users: readonly LoadUser[];
  /** Free users in the order in which they became free; the one idle longest is next. */
  readonly #free = new Set<LoadUser>();
  readonly #backlog: Iteration[] = [];
  readonly #kinds: WeightedPicker<IterationKind>;
  readonly #arrivals: Arrivals;
  #iterations = 0;
  #isClosed = false;

  constructor(plan: VirtualUsersPlan) {
    this.#plan = plan;
    const { min, max } = plan.mix.think_ms;
    const deps = {
      measures: this.measures,
      thinkMs: () => min + Math.random() * (max - min),
      idle: (user: LoadUser) => this.#isFree(user),
      busy: (user: LoadUser) => void this.#free.delete(user),
    };
    this.#users = plan.tokens.map((token, at) => {
      return new LoadUser(deps, { url: plan.url, token, transport: plan.transports[at] ?? 'websocket' });
    });
    this.#kinds = new WeightedPicker(plan.mix.turns);
    this.#arrivals = new Arrivals(plan.iterationsPerSecond, (dueAt) => this.#due(dueAt));
  }

  /** Number of reconnects per user. */
  get reconnects(): readonly number[] {
    return this.#users.map((user) => user.reconnects);
  }

  /** Connects all users; resolves when each has tried once. Later attempts continue in the background. */
  async connect(): Promise<void> {
    const waiting = [...this.#users];
    const gapMs = 1_000 / this.#plan.connectsPerSecond;
    const startedAt = performance.now();
    let started = 0;
    const next = async (): Promise<void> => {
      for (let user = waiting.shift(); user && !this.#isClosed; user = waiting.shift()) {
        await sleep(startedAt + started++ * gapMs - performance.now());
        if (!this.#isClosed) await user.start();
      }
    };
    const parallel = Math.max(1, Math.floor(MAX_CONNECTING / this.#plan.threads));
    await Promise.all(Array.from({ length: parallel }, next));
  }

  start(): void {
    this.#arrivals.start();
  }

  /** Schedules no further iterations; resolves when the scheduled ones have ended, after `graceMs` at the latest. */
  async end(graceMs: number): Promise<void> {
    this.#arrivals.stop();
    const deadline = performance.now() + graceMs;
    const isBusy = () => this.measures.inFlight + this.#backlog.length > 0;
    while (isBusy() && performance.now() < deadline && !this.#isClosed) await sleep(END_POLL_MS);
    this.measures.count('turns_unfinished', this.#backlog.length);
    this.#backlog.length = 0;
  }

  close(): void {
    this.#isClosed = true;
    this.#arrivals.stop();
    for (const user of this.#users) user.close();
  }

  #due(dueAt: number): void {
    const iteration = this.#newIteration(dueAt);
    this.measures.count('turns_due');
    if (iteration.kind === 'agent_request') this.measures.count('runs_requested');
    const [user] = this.#free;
    if (user) user.startIteration(iteration);
    else if (this.#backlog.length < MAX_BACKLOG) this.#backlog.push(iteration);
    else this.measures.count('turns_dropped');
  }

  #isFree(user: LoadUser): void {
    const iteration = this.#backlog.shift();
    if (iteration) user.startIteration(iteration);
    else this.#free.add(user);
  }

  #newIteration(dueAt: number): Iteration {
    const { messages, tools } = this.#plan.mix;
    const kind = this.#kinds.pick();
    const requestId = `load_${randomBytes(12).toString('base64url')}`;
    const at = this.#iterations++;
    return { kind, dueAt, requestId, message: message(kind, requestId, { messages, tools }, at) };
  }
}

/** Returns the message of the `at`-th iteration; texts and tools rotate. */
function message(
  kind: IterationKind,
  requestId: string,
  { messages, tools }: Pick<Mix, 'messages' | 'tools'>,
  at: number,
) {
  if (kind === 'agent_request') {
    return { type: kind, fields: { message: messages[at % messages.length], request_id: requestId } };
  }
  if (kind === 'tool_call') {
    // The key identifies the call when a user sends it again after a lost connection.
    const key = { idempotency_key: requestId, request_id: requestId };
    return { type: kind, fields: { ...tools[at % tools.length], ...key } };
  }
  return { type: 'ping', fields: { timestamp: requestId } };
}

function sleep(ms: number): Promise<void> {
  return ms <= 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, ms));
}
