import type { Fields, Tollgate, TollgateError } from '@tollgate/client';
import { useMemo } from 'react';
import { asTollgateError } from './errors.ts';
import { useTollgate } from './provider.ts';
import { Store, useKept, useStore } from './store.ts';

export interface UsageSnapshot {
  /** The fields of `usage_summary`: `tools`, `runs`, `today`, `this_month`, …; undefined before the first answer. */
  readonly usage: Fields | undefined;
  readonly isLoading: boolean;
  readonly error: TollgateError | undefined;
}

export interface UsageHandle extends UsageSnapshot {
  refresh(): void;
}

/** Events after which the usage differs. */
const BILLED = new Set(['tool_completed', 'agent_completed', 'agent_failed', 'agent_cancelled']);
/** One request covers the events of this time, because it counts against the user's message limit. */
const REFRESH_MS = 1_000;

/** The user's limits and what is used of them, updated after each tool call and run. */
export function useUsage(): UsageHandle {
  const client = useTollgate();
  const display = useKept(() => new UsageDisplay(client), client);
  const snapshot = useStore(display.store);
  return useMemo(() => ({ ...snapshot, refresh: () => void display.refresh() }), [snapshot, display]);
}

class UsageDisplay {
  readonly store: Store<UsageSnapshot>;
  readonly #client: Tollgate;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(client: Tollgate) {
    this.#client = client;
    this.store = new Store<UsageSnapshot>({ usage: undefined, isLoading: true, error: undefined }, () => {
      const remove = client.on('event', ({ type }) => {
        if (BILLED.has(type)) this.#refreshSoon();
      });
      void this.refresh();
      return () => {
        remove();
        clearTimeout(this.#timer);
        this.#timer = undefined;
      };
    });
  }

  async refresh(): Promise<void> {
    this.store.update({ isLoading: true });
    try {
      const usage = await this.#client.usage();
      this.store.update({ usage, isLoading: false, error: undefined });
    } catch (cause) {
      this.store.update({ isLoading: false, error: asTollgateError(cause) });
    }
  }

  #refreshSoon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.refresh();
    }, REFRESH_MS);
  }
}
