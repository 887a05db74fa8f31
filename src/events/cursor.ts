import { type Clock, sleep } from '../lib/clock.ts';
import type { LogEntry } from '../protocol/messages.ts';
import { RedisUnavailable } from '../redis/errors.ts';
import type { EventLog, LogPage } from './event-log.ts';

/** The receiver of the events of a cursor: one client connection. */
export interface CursorSink {
  deliver(entry: LogEntry): void;
  /**
   * The log no longer contains the events after the reader's position. The cursor continues from the head of the log.
   */
  onReplayGap(gap: ReplayGap): void;
  /** Resolves when more events can be written; false when the socket is closed or will never drain. */
  writable(): Promise<boolean>;
  /** Reading the log failed for a reason other than an unavailable Redis. */
  onError(error: unknown): void;
}

export interface CursorDeps {
  readonly eventLog: Pick<EventLog, 'read'>;
  readonly clock: Clock;
}

export interface ReplayGap {
  readonly reason: 'trimmed' | 'epoch_changed';
  readonly oldest_seq: number;
  readonly epoch: string;
}

export interface ResumeFrom {
  /** The last `seq` that the reader received, and the log epoch it belongs to. */
  readonly after: number;
  readonly epoch: string;
  readonly allowed: Promise<void>;
}

export type ResumeResult =
  | { readonly resumed: true; readonly from: number; readonly to: number; readonly epoch: string }
  | ({ readonly resumed: false } & ReplayGap);

/** Entries per page: at most 6 MB, if every event carries a tool result of the maximum size, 64 KiB. */
const PAGE = 100;
/** Characters delivered between two checks of `writable`: an eighth of the output bound of a connection. */
const CHARACTERS_PER_CHECK = 512 * 1024;
/** Maximum number of buffered live events. On overflow the buffer is dropped and the cursor reads the log again. */
const BUFFER_LIMIT = 256;
const RETRY_MS = 250;
const DONE = Promise.resolve();

/**
 * The read position of one connection in its user's event log. It delivers every later event once and in order, even if
 * the live tail repeats or misses events.
 *
 * States: paused (live events are buffered) while `#pauses > 0`, otherwise live. `pause` and `unpause` are counted;
 * `resume` and `catchUp` pause the cursor themselves. A gap in `seq`, a gap in the live tail and a buffer overflow are
 * all handled in the same way: the cursor reads the log up to its head and becomes live again.
 */
export class Cursor {
  readonly #deps: CursorDeps;
  readonly #userId: string;
  readonly #sink: CursorSink;
  #epoch = '';
  #seq = 0;
  /**
   * Timestamp of the last event, if this cursor delivered it: the proof with which the log detects that it lost events.
   */
  #delivered: string | undefined;
  /** Starts paused: nothing is delivered before `start` sets the position. */
  #pauses = 1;
  #buffered: LogEntry[] | undefined;
  #mustRead = false;
  #catchingUp = false;
  #isStopped = false;
  /** Serializes the reads of the log. */
  #work: Promise<void> = DONE;

  constructor(deps: CursorDeps, userId: string, sink: CursorSink) {
    this.#deps = deps;
    this.#userId = userId;
    this.#sink = sink;
  }

  /** Sets the position to `seq`. The cursor remains paused until the first `unpause`. */
  start(epoch: string, seq: number): void {
    this.#epoch = epoch;
    this.#seq = seq;
    this.#delivered = undefined;
  }

  /** Receives an event from the live tail. */
  onLiveEntry(entry: LogEntry): void {
    if (this.#isStopped) return;
    if (this.#pauses === 0) this.#accept(entry);
    else if (!this.#buffered) this.#buffered = [entry];
    else if (this.#buffered.length < BUFFER_LIMIT) this.#buffered.push(entry);
    else {
      this.#buffered = undefined;
      this.#mustRead = true;
    }
  }

  pause(): void {
    this.#pauses += 1;
  }

  unpause(): void {
    this.#pauses -= 1;
    if (this.#pauses > 0) return;
    const buffered = this.#buffered ?? [];
    this.#buffered = undefined;
    if (this.#mustRead) return this.catchUp();
    // A gap among them pauses the cursor again; the remaining events return to the buffer.
    for (const entry of buffered) this.onLiveEntry(entry);
  }

  /** Reads the events that the live tail may have missed. */
  catchUp(): void {
    // Before `start` there is no position to read from. `start` sets it to a head of the log that is read later than
    // this call.
    if (this.#epoch === '' || this.#catchingUp || this.#isStopped) return;
    this.#catchingUp = true;
    this.pause();
    void this.#exclusively(async () => {
      this.#catchingUp = false;
      await this.#readToHead();
    })
      .catch((error: unknown) => this.#sink.onError(error))
      .finally(() => this.unpause());
  }

  /**
   * Compares the cursor with a head that another component read. A cursor behind it has missed events and catches up.
   */
  noteHead(epoch: string, seq: number): void {
    if (this.#pauses === 0 && (epoch !== this.#epoch || seq > this.#seq)) this.catchUp();
  }

  /**
   * Moves back to `after` and delivers every later event, in order, before any newer one. When that is impossible the
   * position does not change.
   * @param from.allowed settles before anything is delivered; when it rejects, so does this method
   * @param onCaughtUp called at the replay boundary: after the replayed events and before the live ones
   * @throws Error when the log cannot be read
   */
  async resume(from: ResumeFrom, onCaughtUp: (result: ResumeResult) => void): Promise<void> {
    this.pause();
    try {
      const result = await this.#exclusively(() => this.#resume(from));
      if (!this.#isStopped) onCaughtUp(result);
    } finally {
      this.unpause();
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#buffered = undefined;
  }

  async #resume({ after, epoch, allowed }: ResumeFrom): Promise<ResumeResult> {
    const reading = this.#deps.eventLog.read(this.#userId, { epoch, after, delivered: undefined }, PAGE);
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

  /** Handles an event that is not the expected next one: reads the log, and buffers the event meanwhile. */
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

  /** Returns false when the cursor was stopped, also because the client reads too slowly. */
  async #deliverAll(entries: readonly LogEntry[]): Promise<boolean> {
    let unchecked = 0;
    for (const entry of entries) {
      if (this.#isStopped) return false;
      if (entry.seq !== this.#seq + 1) continue;
      this.#deliver(entry);
      unchecked += entry.json.length;
      if (unchecked < CHARACTERS_PER_CHECK) continue;
      unchecked = 0;
      if (!(await this.#sink.writable())) this.stop();
    }
    return !this.#isStopped;
  }

  /**
   * Reads the page after the current position. Retries while Redis is unavailable; undefined when the cursor was
   * stopped.
   */
  async #readPage(): Promise<LogPage | undefined> {
    while (!this.#isStopped) {
      const position = { epoch: this.#epoch, after: this.#seq, delivered: this.#delivered ?? '' };
      try {
        const page = await this.#deps.eventLog.read(this.#userId, position, PAGE);
        return this.#isStopped ? undefined : page;
      } catch (error) {
        const isOutage = error instanceof RedisUnavailable;
        if (!isOutage && !this.#isStopped) this.#sink.onError(error);
        if (!isOutage) return undefined;
      }
      await sleep(this.#deps.clock, RETRY_MS);
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
