import { isTerminalEvent } from '../../protocol/messages.ts';
import type { RunEvent } from '../run-events.ts';
import { type Chunk, INITIAL_STATE, isOpenCall, isPageCall, isPaused, mapEvent, pauseChunk } from './chunks.ts';

/**
 * Maximum number of chunks that a replay holds back. Only calls of the same round as a call of the page end while it is
 * open.
 */
const MAX_HELD = 1_000;

/**
 * The chunks of one response, numbered from 0. A response begins with the run, or continues the message after an
 * answer. It ends with the run, or as soon as the run waits for an approval or for a tool of the page, whose answer the
 * client sends with its next request. What only was a wait when the response began is no end:
 *
 *     replaying ──caught up──► live ──paused, or the run has ended──► ended
 *
 * A client executes each call of the page that it receives. A replay therefore holds a call back until it is known
 * whether the call has an answer.
 */
export class ChatResponse {
  readonly #runId: string;
  readonly #after: number;
  readonly #held: Chunk[] = [];
  #state = INITIAL_STATE;
  #last: RunEvent | undefined;
  #isLive = false;
  #hasBegun: boolean;
  #sent = 0;
  #hasEnded = false;

  /** @param after `seq` of the event after which the response continues the message; 0 for a whole one */
  constructor(runId: string, after = 0) {
    this.#runId = runId;
    this.#after = after;
    this.#hasBegun = after === 0;
  }

  /** Number of chunks so far: the index of the next one. */
  get sent(): number {
    return this.#sent;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** The event of the last chunk. */
  get last(): RunEvent | undefined {
    return this.#last;
  }

  /** Maps the next event of the run. */
  add(event: RunEvent): readonly Chunk[] {
    const { state, chunks } = mapEvent(this.#state, event);
    this.#state = state;
    this.#last = event;
    if (event.seq <= this.#after && !isTerminalEvent(event.type)) return [];
    this.#held.push(...chunks);
    return this.#release();
  }

  /** All events so far of the run have been added; those that follow are live. */
  caughtUp(): readonly Chunk[] {
    this.#isLive = true;
    return this.#release();
  }

  #release(): readonly Chunk[] {
    const isOpen = (chunk: Chunk) => isPageCall(chunk) && isOpenCall(this.#state, chunk);
    if (!this.#isLive && this.#held.length <= MAX_HELD && this.#held.some(isOpen)) return [];
    const chunks = this.#held.splice(0).map((chunk): Chunk => {
      return isPageCall(chunk) && !isOpen(chunk) ? { ...chunk, providerExecuted: true } : chunk;
    });
    return this.#counted([...chunks, ...this.#pause()]);
  }

  #pause(): readonly Chunk[] {
    if (!this.#isLive || !this.#last || !isPaused(this.#state)) return [];
    return [pauseChunk(this.#last)];
  }

  #counted(chunks: readonly Chunk[]): readonly Chunk[] {
    if (chunks.length === 0 || this.#hasEnded) return [];
    const all: readonly Chunk[] = this.#hasBegun ? chunks : [{ type: 'start', messageId: this.#runId }, ...chunks];
    this.#hasBegun = true;
    this.#sent += all.length;
    this.#hasEnded = all.at(-1)?.type === 'finish';
    return all;
  }
}
