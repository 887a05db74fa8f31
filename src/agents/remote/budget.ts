import type { RemoteSettings } from '../../catalogue/remote-agents.ts';
import { RemoteFault } from './fault.ts';

/** Bounds what a remote agent sends in one run, over all of its responses. */
export class Budget {
  /** Of one line or event. */
  readonly eventBytes: number;
  readonly #totalBytes: number;
  readonly #maxEvents: number;
  #bytes = 0;
  #events = 0;

  constructor({ event_kib, total_kib, events }: Pick<RemoteSettings, 'event_kib' | 'total_kib' | 'events'>) {
    this.eventBytes = event_kib * 1_024;
    this.#totalBytes = total_kib * 1_024;
    this.#maxEvents = events;
  }

  /** @throws RemoteFault too_large */
  bytes(count: number): void {
    this.#bytes += count;
    if (this.#bytes > this.#totalBytes) throw new RemoteFault('too_large', 'more bytes than total_kib');
  }

  /** @throws RemoteFault too_large */
  event(): void {
    this.#events += 1;
    if (this.#events > this.#maxEvents) throw new RemoteFault('too_large', 'more events than the setting allows');
  }
}
