import { type Clock, sleep } from '../lib/clock.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { LogEntry } from '../protocol/messages.ts';
import type { EventLog, LogPage } from './event-log.ts';

/** Where a cursor's events go: one socket. */
export interface CursorSink {
  readonly deliver: (entry: LogEntry) => void;
  /** Events between the reader's position and the log's are gone; the live stream goes on from the log's head. */
  readonly onReplayGap: (gap: ReplayGap) => void;
  /** Resolves when more can be written; false when the socket is closed or will never drain. */
  readonly writable: () => Promise<boolean>;
  /** The log cannot be read, for another reason than that Redis is away. */
  readonly onError: (error: unknown) => void;
}

export interface ReplayGap {
  readonly reason: 'trimmed' | 'epoch_changed';
  readonly oldest_seq: number;
  readonly epoch: string;
}

export interface ResumeFrom {
  /** The last `seq` that the reader has, and the epoch it belongs to. */
  readonly after: number;
  readonly epoch: string;
  readonly allowed: Promise<void>;
}

export type ResumeResult =
  | { readonly resumed: true; readonly from: number; readonly to: number; readonly epoch: string }
  | ({ readonly resumed: false } & ReplayGap);

/** Entries read at once: 6 MB of the largest events, which a tool's result of 64 KiB makes. */
const PAGE = 100;
/** Delivered before it is asked whether the client keeps up: an eighth of the bound of a socket's output. */
const CHARACTERS_PER_CHECK = 512 * 1024;
/** Live events held back meanwhile; past it they are dropped and read from the log again. */
const BUFFER_LIMIT = 256;
const RETRY_MS = 250;
/** A reason of its own: `abort()` without one makes a DOMException with a stack. */
const STOPPED = 'stopped';

/**
 * One reader's place in a user's log: every event after it once, in order, whatever the live tail repeats or misses.
 *
 * States: held (live events are kept back) while `#holds > 0`, else live. `hold` and `release` count; a resume and a
 * catch-up hold by themselves. A hole in `seq`, a gap of the live tail and an overflow of the held-back events all end
 * in the same way: reading the log up to its head, then going on live.
 */
export class Cursor {
  readonly #log: EventLog;
  readonly #clock: Clock;
  readonly #userId: string;
  readonly #sink: CursorSink;
  #epoch = '';
  #seq = 0;
  /** The timestamp of the event at the place, if this cursor delivered it: proof against a log that went back. */
  #delivered: string | undefined;
  /** Starts held: nothing is delivered before `start` has said where the reader stands. */
  #pauses = 1;
  #buffered: LogEntry[] = [];
  #mustRead = false;
  #catchingUp = false;
  readonly #stopped = new AbortController();
  /** Reading is done by one at a time. */
  #work: Promise<void> = Promise.resolve();

  constructor(deps: { log: EventLog; clock: Clock }, userId: string, sink: CursorSink) {
    this.#log = deps.log;
    this.#clock = deps.clock;
    this.#userId = userId;
    this.#sink = sink;
  }

  /** Takes the place `seq`; still held until the first `release`. */
  start(epoch: string, seq: number): void {
    this.#epoch = epoch;
    this.#seq = seq;
    this.#delivered = undefined;
  }

  /** An event from the live tail. */
  onLiveEntry(entry: LogEntry): void {
    if (this.#stopped.signal.aborted) return;
    if (this.#pauses === 0) this.#accept(entry);
    else if (this.#buffered.length < BUFFER_LIMIT) this.#buffered.push(entry);
    else {
      this.#buffered = [];
      this.#mustRead = true;
    }
  }

  pause(): void {
    this.#pauses += 1;
  }

  unpause(): void {
    this.#pauses -= 1;
    if (this.#pauses > 0) return;
    const buffered = this.#buffered;
    this.#buffered = [];
    if (this.#mustRead) return this.catchUp();
    // One of them may show a hole, which holds again: the rest then goes back to where it was.
    for (const entry of buffered) this.onLiveEntry(entry);
  }

  /** Reads what the live tail may have missed. */
  catchUp(): void {
    // Before the start there is no place to read from, and the place comes from a head of the log that is yet to be read.
    if (this.#epoch === '' || this.#catchingUp || this.#stopped.signal.aborted) return;
    this.#catchingUp = true;
    this.pause();
    void this.#exclusively(async () => {
      this.#catchingUp = false;
      await this.#readToHead();
    })
      .catch((error: unknown) => this.#sink.onError(error))
      .finally(() => this.unpause());
  }

  /** The head that somebody else has read: a cursor behind it has missed something. */
  noteHead(epoch: string, seq: number): void {
    if (this.#pauses === 0 && (epoch !== this.#epoch || seq > this.#seq)) this.catchUp();
  }

  /**
   * Goes back to `after` and delivers everything since, in order, before anything newer. When that is impossible the
   * place stays what it was.
   * @param from.allowed settles before anything is delivered; when it rejects, so does this
   * @param onCaughtUp called between what was replayed and what goes on live
   * @throws Error when the log cannot be read
   */
  async resume(from: ResumeFrom, onCaughtUp: (result: ResumeResult) => void): Promise<void> {
    this.pause();
    try {
      const result = await this.#exclusively(() => this.#resume(from));
      if (!this.#stopped.signal.aborted) onCaughtUp(result);
    } finally {
      this.unpause();
    }
  }

  stop(): void {
    this.#stopped.abort(STOPPED);
    this.#buffered = [];
  }

  async #resume({ after, epoch, allowed }: ResumeFrom): Promise<ResumeResult> {
    const reading = this.#log.read(this.#userId, { epoch, after, delivered: undefined }, PAGE);
    const [page] = await Promise.all([reading, allowed]);
    const oldest_seq = page.oldest;
    if (page.epoch !== epoch || after > page.head) {
      return { resumed: false, reason: 'epoch_changed', oldest_seq, epoch: page.epoch };
    }
    if (after + 1 < page.oldest) return { resumed: false, reason: 'trimmed', oldest_seq, epoch };
    this.start(epoch, after);
    const isOpen = await this.#deliverAll(page.entries);
    if (isOpen && this.#seq < page.head) await this.#readToHead();
    return { resumed: true, from: after + 1, to: this.#seq, epoch };
  }

  #accept(entry: LogEntry): void {
    if (entry.epoch !== this.#epoch) return this.#recover(entry);
    if (entry.seq <= this.#seq) return;
    if (entry.seq > this.#seq + 1) return this.#recover(entry);
    this.#deliver(entry);
  }

  #deliver(entry: LogEntry): void {
    this.#seq = entry.seq;
    this.#delivered = entry.timestamp;
    this.#sink.deliver(entry);
  }

  /** The log has something else than this reader expects next. */
  #recover(entry: LogEntry): void {
    this.catchUp();
    this.onLiveEntry(entry);
  }

  async #readToHead(): Promise<void> {
    this.#mustRead = false;
    for (;;) {
      const page = await this.#readPage();
      if (!page) return;
      const hasGap = page.epoch !== this.#epoch || page.oldest > this.#seq + 1;
      if (hasGap && (page.epoch !== this.#epoch || this.#seq < page.head)) this.#skipTo(page);
      if (!(await this.#deliverAll(page.entries)) || this.#seq >= page.head) return;
      if (!(await this.#sink.writable())) return this.stop();
    }
  }

  #skipTo(page: LogPage): void {
    const reason = page.epoch === this.#epoch ? 'trimmed' : 'epoch_changed';
    this.start(page.epoch, page.head);
    this.#sink.onReplayGap({ reason, oldest_seq: page.oldest, epoch: page.epoch });
  }

  /** False when the reader has gone, or reads too slowly. */
  async #deliverAll(entries: readonly LogEntry[]): Promise<boolean> {
    let unchecked = 0;
    for (const entry of entries) {
      if (this.#stopped.signal.aborted) return false;
      if (entry.seq !== this.#seq + 1) continue;
      this.#deliver(entry);
      unchecked += entry.json.length;
      if (unchecked < CHARACTERS_PER_CHECK) continue;
      unchecked = 0;
      if (!(await this.#sink.writable())) this.stop();
    }
    return !this.#stopped.signal.aborted;
  }

  /** A page after the current place; tries again while Redis is away, undefined once the reader has gone. */
  async #readPage(): Promise<LogPage | undefined> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      const position = { epoch: this.#epoch, after: this.#seq, delivered: this.#delivered ?? '' };
      try {
        const page = await this.#log.read(this.#userId, position, PAGE);
        return signal.aborted ? undefined : page;
      } catch (error) {
        const isOutage = error instanceof TollgateError && error.code === 'OVERLOADED';
        if (!isOutage && !signal.aborted) this.#sink.onError(error);
        if (!isOutage) return undefined;
      }
      await sleep(this.#clock, RETRY_MS, signal);
    }
    return undefined;
  }

  #exclusively<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#work.then(task);
    this.#work = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }
}
