import type { Clock } from '../lib/clock.ts';

/** Users remembered at once; beyond it the oldest windows are let go. */
const USERS = 50_000;

interface Window {
  granted: number;
  /** Of these, the ones that the cluster has not counted. */
  uncounted: number;
  readonly endsAt: number;
}

/** What has to be counted when Redis is back. */
export interface Uncounted {
  readonly key: string;
  readonly messages: number;
  /** Until the window ends that they were granted in, ms. */
  readonly remainingMs: number;
}

/**
 * Messages that a node grants by itself, for want of Redis and of its time: a window per user, which begins with the first
 * of them. A second outage within it finds what the first one used up.
 */
export class LocalLimiter {
  readonly #clock: Clock;
  readonly #windowMs: number;
  /** In the order in which they began, which is the order in which they end. */
  readonly #windows = new Map<string, Window>();

  constructor({ clock }: { readonly clock: Clock }, options: { readonly windowMs: number }) {
    this.#clock = clock;
    this.#windowMs = options.windowMs;
  }

  /** Milliseconds until this user may be granted a message again; 0 while fewer than `share` were. */
  refusalMs(key: string, share: number): number {
    const window = this.#current(key);
    return window && window.granted >= share ? this.#remaining(window) : 0;
  }

  /** Notes a message, which the cluster has not counted yet. */
  grant(key: string): void {
    const window = this.#current(key) ?? this.#startWindow(key);
    window.granted += 1;
    window.uncounted += 1;
  }

  /** What the cluster has not counted of the windows that have not ended. */
  get uncounted(): Uncounted[] {
    return [...this.#windows].flatMap(([key, window]) => {
      const remainingMs = this.#remaining(window);
      return window.uncounted > 0 && remainingMs > 0 ? [{ key, messages: window.uncounted, remainingMs }] : [];
    });
  }

  /** The cluster has counted them. */
  counted(key: string, messages: number): void {
    const window = this.#windows.get(key);
    if (window) window.uncounted -= Math.min(messages, window.uncounted);
  }

  #startWindow(key: string): Window {
    for (const [other, window] of this.#windows) {
      if (this.#remaining(window) > 0 && this.#windows.size < USERS) break;
      this.#windows.delete(other);
    }
    const window = { granted: 0, uncounted: 0, endsAt: this.#clock.now() + this.#windowMs };
    this.#windows.set(key, window);
    return window;
  }

  #current(key: string): Window | undefined {
    const window = this.#windows.get(key);
    if (!window || this.#remaining(window) > 0) return window;
    this.#windows.delete(key);
    return undefined;
  }

  /** More than a window: the clock was set back, and nobody waits for it to catch up. */
  #remaining({ endsAt }: Window): number {
    const remaining = endsAt - this.#clock.now();
    return remaining > this.#windowMs ? 0 : Math.max(0, remaining);
  }
}
