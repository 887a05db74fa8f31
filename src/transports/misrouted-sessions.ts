import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Server } from 'socket.io';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';

/** Events between nodes, over Socket.IO's adapter. */
const SEARCH = 'tollgate:search_session';
const FOUND = 'tollgate:found_session';
/** The owner answers within a few milliseconds. If it is disconnected, the client waits for this and reconnects. */
const ANSWER_TIMEOUT_MS = 250;
/** Bounds the messages that requests with invented session ids can cause: 80 per second and node. */
const MAX_SEARCHES = 20;
/** An id of Engine.IO has 20 characters. */
const MAX_ID_LENGTH = 64;
/** Interval of the warnings: in a deployment without affinity every client causes one. */
const WARN_EVERY_MS = 60_000;

interface MisroutedSessionsDeps {
  readonly io: Server;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Ends a session of this node if it is young enough; returns whether there is one. */
  readonly end: (sid: string) => boolean;
}

/**
 * Finds out whether a request of a long-polling session reached the wrong node because the load balancer has no session
 * affinity. Without this, Engine.IO answers "Session ID unknown", and its clients reconnect endlessly, about once
 * per second, with an error that does not name the cause.
 *
 * The node asks the others. The node that owns the session ends it, if it is so young that the load balancer has never
 * kept it on its node, and answers. An older session, and one of a node that stopped, keep Engine.IO's answer: their
 * clients reconnect.
 */
export class MisroutedSessions {
  readonly #io: Server;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #warnedAt = Number.NEGATIVE_INFINITY;
  /** Session ids whose owner is searched, with the callbacks that wait for it. */
  readonly #searches = new Map<string, Set<(found: boolean) => void>>();

  constructor({ io, clock, logger, end }: MisroutedSessionsDeps) {
    this.#io = io;
    this.#clock = clock;
    this.#logger = logger;
    io.on(SEARCH, (sid: unknown) => {
      if (typeof sid === 'string' && end(sid)) io.serverSideEmit(FOUND, sid);
    });
    io.on(FOUND, (sid: unknown) => {
      for (const found of this.#searches.get(String(sid)) ?? []) found(true);
    });
  }

  /** Whether another node owned the session; it has ended it. Resolves with false if none answers in time. */
  async endedElsewhere(sid: string): Promise<boolean> {
    const waiting = this.#searches.get(sid) ?? new Set();
    // Several requests of one client search for the same session.
    const isFull = waiting.size === 0 ? this.#searches.size >= MAX_SEARCHES : waiting.size >= MAX_SEARCHES;
    if (isFull || sid.length > MAX_ID_LENGTH) return false;
    this.#searches.set(sid, waiting);
    return new Promise((resolve) => {
      const answer = (found: boolean) => {
        cancel();
        if (found) this.#warn();
        waiting.delete(answer);
        if (waiting.size === 0) this.#searches.delete(sid);
        resolve(found);
      };
      const cancel = this.#clock.after(ANSWER_TIMEOUT_MS, () => answer(false));
      waiting.add(answer);
      if (waiting.size === 1) this.#io.serverSideEmit(SEARCH, sid);
    });
  }

  #warn(): void {
    if (this.#clock.now() - this.#warnedAt < WARN_EVERY_MS) return;
    this.#warnedAt = this.#clock.now();
    this.#logger.warn('long polling reached another node than that of its session: enable session affinity');
  }
}

/** The packet with which Socket.IO refuses a client. Its client reports `connect_error` and does not reconnect. */
export function affinityRefusal(): string {
  const error = new TollgateError('AFFINITY_REQUIRED');
  return `4${JSON.stringify({ message: error.message, data: publicError(error) })}`;
}

/**
 * Responds to a request of a session that another node has ended. A poll carries the refusal. The client ignores the
 * body of the response to a POST, and an error would make it reconnect; its poll at the owner carries the refusal.
 */
export function respondMisrouted({ method, headers }: IncomingMessage, response: ServerResponse): void {
  const body = method === 'GET' ? `4${affinityRefusal()}` : 'ok';
  const { origin } = headers;
  // The origin has been checked. Engine.IO sends the same headers with its own responses.
  const cors = { 'access-control-allow-credentials': 'true', vary: 'Origin' };
  response
    .writeHead(200, {
      'content-type': 'text/plain; charset=UTF-8',
      'cache-control': 'no-store',
      ...(origin === undefined ? {} : { 'access-control-allow-origin': origin, ...cors }),
    })
    .end(body);
}
