import { setTimeout as delay } from 'node:timers/promises';
import { ConnectionStoppedError, TollgateError } from '../../packages/client/src/main.ts';
import { Random } from '../../test/support/chaos/random.ts';
import type { Ended, Invoked, OperationName, Recorder } from './history.ts';
import type { User } from './users.ts';

export const REQUEST_MS = 20_000;
/** A run whose worker dies is taken over within 15 s; the next one may die too. */
export const RUN_MS = 60_000;
const MAX_PAUSE_MS = 150;
export const MESSAGES = ['Which agents are there?', 'Hello', 'What can you do for me?'];
/** Codes of the client package after which the outcome is unknown. */
const UNKNOWN_CODES = ['CLOSED', 'DISCONNECTED', 'CANNOT_CONNECT', 'SIGNED_OUT', 'REQUEST_TIMEOUT', 'EVENTS_LOST'];

export interface MemberDeps {
  readonly recorder: Recorder;
  readonly urls: readonly string[];
  readonly seed: number;
  /** Aborted when no further operation may begin. */
  readonly signal: AbortSignal;
}

export type Outcome = Omit<Ended, 'id' | 'at'>;

/** One client of a user, which does one operation after the other. */
export abstract class Member {
  readonly user: User;
  readonly name: string;
  protected readonly deps: MemberDeps;
  protected readonly random: Random;
  protected readonly maxPauseMs: number = MAX_PAUSE_MS;
  #operations = 0;

  constructor(deps: MemberDeps, user: User, name: string) {
    this.deps = deps;
    this.user = user;
    this.name = name;
    this.random = new Random(deps.seed);
  }

  /** Resolves when the last operation has ended after the signal. */
  async work(): Promise<void> {
    while (!this.deps.signal.aborted) {
      await this.next();
      await delay(this.random.below(this.maxPauseMs));
    }
  }

  /** Closes what is still open after the last operation. */
  close(): void {}

  protected abstract next(): Promise<unknown>;

  protected get url(): string {
    const { urls } = this.deps;
    return urls[this.random.below(urls.length)] ?? '';
  }

  protected newKey(kind: string): string {
    this.#operations += 1;
    return `${this.name}-${kind}-${this.#operations}`;
  }

  /** Records an operation from its begin to its end, whatever happens. */
  async operation(
    op: OperationName,
    { key, value }: Pick<Invoked, 'key' | 'value'>,
    act: (id: number) => Promise<Outcome>,
  ): Promise<Outcome> {
    const { recorder } = this.deps;
    const id = recorder.invoke({ op, key, value, user: this.user.id, client: this.name });
    const outcome = await act(id).catch(outcomeOf);
    recorder.add({ ...outcome, id });
    return outcome;
  }
}

/**
 * A refusal that a repetition would not change is a failure; after anything else the outcome is unknown. The end of a
 * connection, for example because a gateway with a wrong clock refuses its token, says nothing about requests that were
 * sent before.
 */
export function outcomeOf(error: unknown): Outcome {
  if (!(error instanceof TollgateError) || error instanceof ConnectionStoppedError) {
    return { t: 'unknown', code: String(error).slice(0, 200) };
  }
  const isKnown = !error.retryable && !UNKNOWN_CODES.includes(error.code);
  return { t: isKnown ? 'failed' : 'unknown', code: error.code };
}
