import { createHash } from 'node:crypto';
import { canonicalJson } from '../lib/canonical-json.ts';
import type { Clock } from '../lib/clock.ts';
import { Seal } from '../lib/seal.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';

const PURPOSE = 'tollgate request state of mcp';

/** Request that was answered with input requests. The answer must arrive with the same request. */
export interface StatedRequest {
  readonly userId: string;
  readonly method: 'tools/call' | 'prompts/get' | 'resources/read';
  /** Name of the tool or prompt, or URI of the resource. */
  readonly name: string;
  readonly args: Fields;
  readonly idempotencyKey: string | undefined;
}

/** Data that the answer needs to continue the request. */
export interface RequestState {
  /** Server that sent the input requests. */
  readonly server: string;
  /** Undefined for prompts and resources. */
  readonly callId?: string | undefined;
  /** Input rounds of the request, including this one. */
  readonly asked: number;
  /** State of the server, unchanged; undefined if it sent none. */
  readonly state?: string | undefined;
}

interface Sealed extends RequestState {
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/**
 * Seals and opens request states. A caller receives the state with the input requests and returns it with the answer,
 * so nodes store nothing and any node can continue. Only processes with the secret can create a state. It is valid for
 * the same request of the same user until it expires. It can be presented more than once; the receiver must be
 * idempotent.
 */
export class RequestStates {
  readonly #clock: Clock;
  readonly #seal: Seal;
  readonly #keptMs: number;

  /** @param secret `SERVICE_SECRET`, shared by the processes of one deployment */
  constructor({ clock }: { readonly clock: Clock }, { secret, keptMs }: { secret: string; keptMs: number }) {
    this.#clock = clock;
    this.#seal = new Seal(secret, PURPOSE);
    this.#keptMs = keptMs;
  }

  seal(request: StatedRequest, state: RequestState): string {
    const sealed: Sealed = { ...state, expiresAt: this.#clock.now() + this.#keptMs };
    return this.#seal.seal(JSON.stringify(sealed), identityOf(request));
  }

  /**
   * Opens a state.
   * @throws TollgateError REQUEST_STATE_INVALID if it is malformed, expired or of another user or request
   */
  open(request: StatedRequest, sealed: string): RequestState {
    const text = this.#seal.open(sealed, identityOf(request));
    if (text === undefined) throw new TollgateError('REQUEST_STATE_INVALID');
    const { expiresAt, ...state }: Sealed = JSON.parse(text);
    if (this.#clock.now() >= expiresAt) throw new TollgateError('REQUEST_STATE_INVALID');
    return state;
  }
}

/** Hash that identifies the request, independent of the order of object members. */
function identityOf({ userId, method, name, args, idempotencyKey }: StatedRequest): string {
  const values = [userId, method, name, idempotencyKey ?? null, args];
  return createHash('sha256').update(canonicalJson(values)).digest('base64url');
}
