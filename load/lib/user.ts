import { ERRORS } from '../../src/protocol/errors.ts';
import { type Fields, type Link, openLink } from './link.ts';
import type { Measures } from './measures.ts';
import type { Transport } from './mix.ts';
import { StreamCheck, type StreamVerdict } from './stream-check.ts';
import { progressOf, type Turn } from './turn.ts';

/** From the attempt to the welcome; the server ends a handshake after ten seconds. */
const WELCOME_MS = 20_000;
/** A run may take 45 s; whoever has heard nothing by then hears nothing any more. */
const TURN_MS = 60_000;
const BACK_OFF_MS = { first: 100, last: 5_000 };
/** Close codes after which a client stays away, where the close names no row of the protocol's errors. */
const FINAL_CODES = new Set(['1008', '4001', '4003', 'io server disconnect', 'TOKEN_EXPIRED']);

export interface UserDeps {
  readonly measures: Measures;
  readonly thinkMs: () => number;
  /** The user is connected and has nothing to do. */
  readonly free: (user: LoadUser) => void;
  /** It is not, any more. */
  readonly taken: (user: LoadUser) => void;
}

export interface UserOptions {
  readonly url: string;
  readonly transport: Transport;
  readonly token: string;
}

/**
 * One user with one connection.
 *
 *     away → connecting → connected → (lost, or cut by a turn of its own) → away → connecting …
 *     any → gone: by `close`, or when the server says not to come back
 *
 * A connected user is free, in a turn, or thinking. A turn survives its connection, as a run does: what the server may
 * not have heard is sent again under the same request id, which starts nothing twice.
 */
export class LoadUser {
  readonly #deps: UserDeps;
  readonly #options: UserOptions;
  readonly #stream = new StreamCheck();
  #token: string;
  #link: Link | undefined;
  #isConnected = false;
  #isGone = false;
  /** Failed attempts in a row. */
  #failures = 0;
  /** What a draining node asked for; for the next attempt alone. */
  #retryAfterMs: number | undefined;
  #connectTimer: NodeJS.Timeout | undefined;
  #turn: { readonly plan: Turn; heard: boolean; hasBegun: boolean; readonly timer: NodeJS.Timeout } | undefined;
  #thinkTimer: NodeJS.Timeout | undefined;
  #settleFirst: () => void = () => {};
  /** How often it came back. */
  reconnects = 0;

  constructor(deps: UserDeps, options: UserOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#token = options.token;
  }

  /** Resolves when the first attempt has succeeded or failed; after a failure the user goes on trying. */
  start(): Promise<void> {
    const first = new Promise<void>((resolve) => {
      this.#settleFirst = resolve;
    });
    this.#connect();
    return first;
  }

  /** Only for a user that is free. */
  begin(plan: Turn): void {
    const { measures, taken } = this.#deps;
    taken(this);
    measures.inFlight += 1;
    measures.timed('lateness', plan.dueAt);
    const timer = setTimeout(() => this.#endTurn('timeout'), TURN_MS);
    this.#turn = { plan, heard: false, hasBegun: false, timer };
    if (plan.kind !== 'resume') return this.#say(plan);
    this.#leave()?.cut();
    this.#connect();
  }

  /** For good. A turn under way is left unfinished. */
  close(): void {
    this.#isGone = true;
    this.#deps.taken(this);
    clearTimeout(this.#thinkTimer);
    if (this.#turn) {
      clearTimeout(this.#turn.timer);
      this.#turn = undefined;
      this.#deps.measures.inFlight -= 1;
      this.#deps.measures.count('turns_unfinished');
    }
    this.#leave()?.close();
    this.#settleFirst();
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
          // What an earlier connection still had in its buffers is no longer ours: the position was given without it.
          if (this.#link !== link) return;
          if (type === 'connection_established') this.#welcomed(fields, startedAt);
          // A refusal before the welcome is about the connection: its close says why.
          else if (this.#isConnected) this.#heard(type, fields);
        },
        closed: (why) => {
          if (this.#link === link) this.#lost(why);
        },
      },
    );
    this.#link = link;
    this.#connectTimer = setTimeout(() => {
      this.#lost('no welcome');
      link.close();
    }, WELCOME_MS);
  }

  #welcomed({ authenticated, epoch, seq }: Fields, startedAt: number): void {
    const { measures } = this.#deps;
    if (authenticated !== true || typeof epoch !== 'string' || typeof seq !== 'number') return this.#lost('no user');
    clearTimeout(this.#connectTimer);
    measures.count('connections_authenticated');
    measures.timed('connect', startedAt);
    measures.connected += 1;
    this.#isConnected = true;
    this.#failures = 0;
    if (this.#stream.position) {
      this.reconnects += 1;
      measures.count('reconnects');
    } else this.#stream.begin(epoch, seq);
    this.#settleFirst();
    if (!this.#turn) this.#think();
    else if (!this.#turn.heard && this.#turn.plan.kind !== 'resume') this.#say(this.#turn.plan);
  }

  #heard(type: string, fields: Fields): void {
    const { measures } = this.#deps;
    if (typeof fields.seq === 'number') {
      measures.count('events');
      this.#judge(this.#stream.event(fields.seq));
    } else if (type === 'resumed') {
      measures.count('resumes');
      this.#judge(this.#stream.resumed(Number(fields.to)));
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
    const turn = this.#turn;
    if (!turn) return;
    const progress = progressOf(turn.plan, type, fields);
    if (progress === undefined) return;
    turn.heard = true;
    if (progress === 'first_event' && !turn.hasBegun) {
      turn.hasBegun = true;
      this.#deps.measures.timed('first_event', turn.plan.dueAt);
    }
    if (progress === 'completed') this.#endTurn(undefined);
    else if (typeof progress === 'object') this.#endTurn(progress.failed);
  }

  /** @param failure undefined for a turn that came to its end */
  #endTurn(failure: string | undefined): void {
    if (!this.#turn) return;
    const { measures } = this.#deps;
    const { plan, timer } = this.#turn;
    clearTimeout(timer);
    this.#turn = undefined;
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
      if (this.#isConnected && !this.#turn) this.#deps.free(this);
    };
    this.#thinkTimer = setTimeout(free, this.#deps.thinkMs());
  }

  #lost(why: string): void {
    const { measures } = this.#deps;
    if (this.#isConnected) measures.count('connections_lost');
    else this.#failures += 1;
    measures.error(`connection: ${why}`);
    this.#leave();
    this.#settleFirst();
    if (this.#isGone) return;
    if (isFinal(why)) {
      this.#isGone = true;
      return this.#endTurn('stayed away');
    }
    const backOffMs = Math.min(BACK_OFF_MS.last, BACK_OFF_MS.first * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.#connectTimer = setTimeout(() => this.#connect(), this.#retryAfterMs ?? backOffMs);
    this.#retryAfterMs = undefined;
  }

  /** No connection is ours from here on; the one that was is returned. */
  #leave(): Link | undefined {
    const link = this.#link;
    clearTimeout(this.#connectTimer);
    this.#link = undefined;
    if (this.#isConnected) this.#deps.measures.connected -= 1;
    this.#isConnected = false;
    this.#deps.taken(this);
    return link;
  }

  #say({ message: { type, fields } }: Turn): void {
    this.#link?.send(type, fields);
  }

  #judge({ lost, repeated }: StreamVerdict): void {
    this.#deps.measures.count('events_lost', lost);
    this.#deps.measures.count('events_repeated', repeated);
  }
}

function isFinal(why: string): boolean {
  if (FINAL_CODES.has(why)) return true;
  return why in ERRORS && !ERRORS[why as keyof typeof ERRORS].retryable;
}
