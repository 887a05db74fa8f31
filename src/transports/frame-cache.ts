import type { Dialect } from '../protocol/dialects.ts';
import type { LogEntry } from '../protocol/messages.ts';

export type EntryEncoding = Pick<Dialect, 'encodeEntry'>;

/**
 * Caches the frames of the last encoded event, one per encoding. All connections of a user send an event directly after
 * each other, so one entry is as effective as a map.
 */
export class FrameCache {
  #entry: LogEntry | undefined;
  readonly #frames = new Map<EntryEncoding, string>();

  frame(entry: LogEntry, encoding: EntryEncoding): string {
    if (entry !== this.#entry) {
      this.#entry = entry;
      this.#frames.clear();
    }
    const cached = this.#frames.get(encoding);
    if (cached !== undefined) return cached;
    const frame = encoding.encodeEntry(entry);
    this.#frames.set(encoding, frame);
    return frame;
  }
}
