import type { Clock } from '../lib/clock.ts';

/** Maximum stored windows, one per user; above it the limiter drops the oldest. */
const USERS = 50_000;

interface Window {
  granted: number;
  /** The part of `granted` that Redis has not counted. */
  uncounted: number;
  readonly endsAt: number;
}

/** Messages of one user that Redis must count when it is available again. */
export interface Uncounted {
  readonly key: string;
  readonly messages: number;
  /** Milliseconds until the end of the window in which they were granted. */
  readonly remainingMs: number;
}

/**
 * Local fallback limiter: grants messages while Redis is unavailable. Each user has one window, which starts with the
 * first message. A window outlives an outage, so a second outage within it does not grant the allowance again.
 */
export class LocalLimiter {
  readonly #clock: Clock;
  readonly #windowMs: number;
  /** In order of their start, which is also the order of their end. */
  readonly #windows = new Map<string, Window>();

  constructor({ clock }: { readonly clock: Clock }, options: { readonly windowMs: number }) {
    this.#clock = clock;
    this.#windowMs = options.windowMs;
  }

  /** Returns the milliseconds until the user gets a message again; 0 while fewer than `share` are granted. */
  refusalMs(key: string, share: number): number {
    const window = this.#current(key);
    return window && window.granted >= share ? this.#remaining(window) : 0;
  }

  /** Grants a message that Redis has not counted yet. */
  grant(key: string): void {
    const window = this.#current(key) ?? this.#startWindow(key);
    window.granted += 1;
    window.uncounted += 1;
  }

  /** The messages of current windows that Redis has not counted. */
  get uncounted(): Uncounted[] {
    return [...this.#windows].flatMap(([key, window]) => {
      const remainingMs = this.#remaining(window);
      return window.uncounted > 0 && remainingMs > 0 ? [{ key, messages: window.uncounted, remainingMs }] : [];
    });
  }

  /** Marks messages as counted by Redis. */
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

  /** Returns 0 if more than a window remains: the clock was set back, and the window must not last longer for it. */
  #remaining({ endsAt }: Window): number {
    const remaining = endsAt - this.#clock.now();
    return remaining > this.#windowMs ? 0 : Math.max(0, remaining);
  }
}
