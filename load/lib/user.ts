import { backoffMs } from '../../packages/client/src/backoff.ts';
import type { Fields } from '../../packages/client/src/transports/transport.ts';
import { ERRORS } from '../../src/protocol/error-table.ts';
import { type Iteration, progressOf } from './iteration.ts';
import { type Link, openLink } from './link.ts';
import type { Measures } from './measures.ts';
import type { Transport } from './mix.ts';
import { StreamCheck, type StreamResult } from './stream-check.ts';

/** Timeout from the attempt to the welcome; the server ends a handshake after ten seconds. */
const WELCOME_MS = 20_000;
/** Timeout of an iteration. A run ends after 45 s at the latest. */
const TURN_MS = 60_000;
const BACKOFF = { firstMs: 100, maxMs: 5_000 };
/** Close codes after which a client does not reconnect, if the close names no code of the error table. */
const FINAL_CODES = new Set(['1008', '4001', '4003', 'io server disconnect', 'TOKEN_EXPIRED']);

export interface UserDeps {
  readonly measures: Measures;
  readonly thinkMs: () => number;
  /** Called when the user is connected and has nothing to do. */
  readonly idle: (user: LoadUser) => void;
  /** Called when the user is no longer free. */
  readonly busy: (user: LoadUser) => void;
}

export interface UserOptions {
  readonly url: string;
  readonly transport: Transport;
  readonly token: string;
}

/**
 * One virtual user with one connection.
 *
 *     away → connecting → connected → (lost, or cut by a resume iteration) → away → connecting …
 *     any → closed: by `close`, or when the server forbids a reconnect
 *
 * A connected user is free, in an iteration, or thinking. An iteration outlives its connection, as a run does: after a
 * reconnect the user sends a request that the server may not have received again, under the same request id, which
 * starts nothing twice.
 */
export class LoadUser {
  readonly #deps: UserDeps;
  readonly #options: UserOptions;
  readonly #stream = new StreamCheck();
  #token: string;
  #link: Link | undefined;
  #isConnected = false;
  #isClosed = false;
  /** Consecutive failed attempts. */
  #failures = 0;
  /** Delay that a draining node requested, for the next attempt only. */
  #retryAfterMs: number | undefined;
  #connectTimer: NodeJS.Timeout | undefined;
  #iteration:
    | { readonly plan: Iteration; received: boolean; hasBegun: boolean; readonly timer: NodeJS.Timeout }
    | undefined;
  #thinkTimer: NodeJS.Timeout | undefined;
  #resolveFirst: () => void = () => {};
  /** Number of reconnects. */
  reconnects = 0;

  constructor(deps: UserDeps, options: UserOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#token = options.token;
  }

  /** Resolves when the first attempt has succeeded or failed. After a failure the user keeps trying. */
  start(): Promise<void> {
    const first = new Promise<void>((resolve) => {
      this.#resolveFirst = resolve;
    });
    this.#connect();
    return first;
  }

  /** Call only for a free user. */
  startIteration(plan: Iteration): void {
    const { measures, busy } = this.#deps;
    busy(this);
    measures.inFlight += 1;
    measures.timed('lateness', plan.dueAt);
    const timer = setTimeout(() => this.#endIteration('timeout'), TURN_MS);
    this.#iteration = { plan, received: false, hasBegun: false, timer };
    if (plan.kind !== 'resume') return this.#say(plan);
    this.#leave()?.cut();
    this.#connect();
  }

  /** Closes the user for good. An iteration in flight counts as unfinished. */
  close(): void {
    this.#isClosed = true;
    this.#deps.busy(this);
    clearTimeout(this.#thinkTimer);
    if (this.#iteration) {
      clearTimeout(this.#iteration.timer);
      this.#iteration = undefined;
      this.#deps.measures.inFlight -= 1;
      this.#deps.measures.count('turns_unfinished');
    }
    this.#leave()?.close();
    this.#resolveFirst();
  }

  #connect(): void {
    const { measures } = this.#deps;
    const { url, transport } = this.#options;
    const startedAt = performance.now();
    measures.count('connections_attempted');
    const position = this.#stream.position;
    const link: Link = openLink(
      { url, transport, token: this.#token, position },
      {
        opened: () => measures.count('connections_opened'),
        event: (type, fields) => {
          // Ignores events that an earlier connection still had in its buffers: the resume position does not contain
          // them.
          if (this.#link !== link) return;
          if (type === 'connection_established') this.#welcomed(fields, startedAt);
          // A refusal before the welcome concerns the connection, and its close carries the reason.
          else if (this.#isConnected) this.#onMessage(type, fields);
        },
        closed: (why) => {
          if (this.#link === link) this.#onDisconnect(why);
        },
      },
    );
    this.#link = link;
    this.#connectTimer = setTimeout(() => {
      this.#onDisconnect('no welcome');
      link.close();
    }, WELCOME_MS);
  }

  #welcomed({ authenticated, epoch, seq }: Fields, startedAt: number): void {
    const { measures } = this.#deps;
    if (authenticated !== true || typeof epoch !== 'string' || typeof seq !== 'number')
      return this.#onDisconnect('no user');
    clearTimeout(this.#connectTimer);
    measures.count('connections_authenticated');
    measures.timed('connect', startedAt);
    measures.connected += 1;
    this.#isConnected = true;
    this.#failures = 0;
    if (this.#stream.position) {
      this.reconnects += 1;
      measures.count('reconnects');
    } else this.#stream.start(epoch, seq);
    this.#resolveFirst();
    if (!this.#iteration) this.#think();
    else if (!this.#iteration.received && this.#iteration.plan.kind !== 'resume') this.#say(this.#iteration.plan);
  }

  #onMessage(type: string, fields: Fields): void {
    const { measures } = this.#deps;
    if (typeof fields.seq === 'number') {
      measures.count('events');
      this.#recordStream(this.#stream.event(fields.seq));
    } else if (type === 'resumed') {
      measures.count('resumes');
      this.#recordStream(this.#stream.resumed(Number(fields.to)));
    } else if (type === 'resume_failed') {
      measures.count('resume_failures');
      this.#stream.resumeFailed(String(fields.epoch));
    } else if (type === 'token_refreshed' && typeof fields.access_token === 'string') {
      this.#token = fields.access_token;
    } else if (type === 'server_draining') {
      this.#retryAfterMs = Number(fields.retry_after_ms) || 0;
    }
    this.#advance(type, fields);
  }

  #advance(type: string, fields: Fields): void {
    const iteration = this.#iteration;
    if (!iteration) return;
    const progress = progressOf(iteration.plan, type, fields);
    if (progress === undefined) return;
    iteration.received = true;
    if (progress === 'first_event' && !iteration.hasBegun) {
      iteration.hasBegun = true;
      this.#deps.measures.timed('first_event', iteration.plan.dueAt);
    }
    if (progress === 'completed') this.#endIteration(undefined);
    else if (typeof progress === 'object') this.#endIteration(progress.failed);
  }

  /** @param failure undefined if the iteration completed */
  #endIteration(failure: string | undefined): void {
    if (!this.#iteration) return;
    const { measures } = this.#deps;
    const { plan, timer } = this.#iteration;
    clearTimeout(timer);
    this.#iteration = undefined;
    measures.inFlight -= 1;
    if (failure === undefined) {
      measures.count('turns_completed');
      if (plan.kind === 'agent_request') measures.count('runs_completed');
      measures.timed(plan.kind === 'agent_request' ? 'run' : plan.kind, plan.dueAt);
    } else {
      measures.count('turns_failed');
      measures.error(`${plan.kind}: ${failure}`);
    }
    if (this.#isConnected) this.#think();
  }

  #think(): void {
    clearTimeout(this.#thinkTimer);
    const free = () => {
      if (this.#isConnected && !this.#iteration) this.#deps.idle(this);
    };
    this.#thinkTimer = setTimeout(free, this.#deps.thinkMs());
  }

  #onDisconnect(why: string): void {
    const { measures } = this.#deps;
    if (this.#isConnected) measures.count('connections_lost');
    else this.#failures += 1;
    measures.error(`connection: ${why}`);
    this.#leave();
    this.#resolveFirst();
    if (this.#isClosed) return;
    if (isFinal(why)) {
      this.#isClosed = true;
      return this.#endIteration('stayed away');
    }
    const delayMs = this.#retryAfterMs ?? backoffMs(this.#failures, BACKOFF, Math.random);
    this.#connectTimer = setTimeout(() => this.#connect(), delayMs);
    this.#retryAfterMs = undefined;
  }

  /** Detaches and returns the current connection. */
  #leave(): Link | undefined {
    const link = this.#link;
    clearTimeout(this.#connectTimer);
    this.#link = undefined;
    if (this.#isConnected) this.#deps.measures.connected -= 1;
    this.#isConnected = false;
    this.#deps.busy(this);
    return link;
  }

  #say({ message: { type, fields } }: Iteration): void {
    this.#link?.send(type, fields);
  }

  #recordStream({ lost, repeated }: StreamResult): void {
    this.#deps.measures.count('events_lost', lost);
    this.#deps.measures.count('events_repeated', repeated);
  }
}

function isFinal(why: string): boolean {
  if (FINAL_CODES.has(why)) return true;
  return why in ERRORS && !ERRORS[why as keyof typeof ERRORS].retryable;
}
