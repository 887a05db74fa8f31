import { createHash } from 'node:crypto';
import { canonicalJson } from '../lib/canonical-json.ts';
import type { Clock } from '../lib/clock.ts';
import { Seal } from '../lib/seal.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';

const PURPOSE = 'tollgate request state of mcp';

/** The request that was answered by questions: the answer must come with the same one. */
export interface StatedRequest {
  readonly userId: string;
  readonly method: 'tools/call' | 'prompts/get' | 'resources/read';
  /** Of the tool or prompt, or the resource's URI. */
  readonly name: string;
  readonly args: Fields;
  readonly idempotencyKey: string | undefined;
}

/** What goes on with the answer. */
export interface RequestState {
  /** The server that has asked. */
  readonly server: string;
  /** Undefined for prompts and resources, which are no calls. */
  readonly callId?: string | undefined;
  /** Questions that an answer answers, those before them included. */
  readonly asked: number;
  /** The server's own state, unchanged; undefined where it gave none. */
  readonly state?: string | undefined;
}

interface Sealed extends RequestState {
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/**
 * Request states as callers get them with a question, and bring them back with the answer. They are sealed, so that no node
 * keeps anything and every node can go on: nobody else can make one, and one is of use for the request that it was
 * made for, from the same user, until it expires. That the same one does nothing twice is for who goes on to see to.
 */
export class RequestStates {
  readonly #clock: Clock;
  readonly #seal: Seal;
  readonly #keptMs: number;

  /** @param secret `SERVICE_SECRET`: what the processes of one installation share */
  constructor({ clock }: { readonly clock: Clock }, { secret, keptMs }: { secret: string; keptMs: number }) {
    this.#clock = clock;
    this.#seal = new Seal(secret, PURPOSE);
    this.#keptMs = keptMs;
  }

  seal(request: StatedRequest, state: RequestState): string {
    const sealed: Sealed = { ...state, expiresAt: this.#clock.now() + this.#keptMs };
    return this.#seal.seal(JSON.stringify(sealed), identityOf(request));
  }

  /** @throws TollgateError REQUEST_STATE_INVALID for one of another user or request, one that has expired, and what is none */
  open(request: StatedRequest, sealed: string): RequestState {
    const text = this.#seal.open(sealed, identityOf(request));
    if (text === undefined) throw new TollgateError('REQUEST_STATE_INVALID');
    const { expiresAt, ...state } = JSON.parse(text) as Sealed;
    if (this.#clock.now() >= expiresAt) throw new TollgateError('REQUEST_STATE_INVALID');
    return state;
  }
}

/** The same text for the same request, whatever the order of its members. */
function identityOf({ userId, method, name, args, idempotencyKey }: StatedRequest): string {
  const values = [userId, method, name, idempotencyKey ?? null, args];
  return createHash('sha256').update(canonicalJson(values)).digest('base64url');
}
