import type { Run, RunEvent, RunOptions, RunResult, Tollgate, TollgateError } from '@tollgate/client';
import { useMemo } from 'react';
import { asTollgateError } from './errors.ts';
import { useTollgate } from './provider.ts';
import { RunText } from './run-text.ts';
import { Store, useKept, useStore } from './store.ts';

/**
 * `idle` before the first run, `starting` until the gateway accepts it, `running`, and then how it ended. A refused run
 * is `failed`.
 */
export type RunState = 'idle' | 'starting' | 'running' | 'completed' | 'failed' | 'cancelled';

export interface RunSnapshot {
  readonly state: RunState;
  readonly runId: string | undefined;
  readonly threadId: string | undefined;
  /** The agent's text so far, and at the end its answer. */
  readonly text: string;
  /** The latest events, at most `maxEvents`. */
  readonly events: readonly RunEvent[];
  /** Number of all events, those that `events` no longer has included. */
  readonly eventCount: number;
  readonly result: RunResult | undefined;
  readonly error: TollgateError | undefined;
}

export interface UseRunOptions {
  readonly agent?: string;
  readonly thread?: string;
  /** Default 1,000. */
  readonly maxEvents?: number;
}

export interface RunHandle extends RunSnapshot {
  /** Starts a run, which replaces the one shown. The replaced run continues in the gateway: cancel it before. */
  start(message: string, options?: RunOptions): Run;
  /** Cancels the run shown, if there is one. */
  cancel(): void;
}

const IDLE: RunSnapshot = {
  state: 'idle',
  runId: undefined,
  threadId: undefined,
  text: '',
  events: [],
  eventCount: 0,
  result: undefined,
  error: undefined,
};
const MAX_EVENTS = 1_000;

/** Starts runs and shows the latest one. It continues in the gateway when the component unmounts. */
export function useRun({ agent, thread, maxEvents = MAX_EVENTS }: UseRunOptions = {}): RunHandle {
  const client = useTollgate();
  const display = useKept(() => new RunDisplay(client), client);
  const snapshot = useStore(display.store);
  return useMemo(
    () => ({
      ...snapshot,
      start: (message, options = {}) => display.start(message, { agent, thread, ...options }, maxEvents),
      cancel: () => display.cancel(),
    }),
    [snapshot, display, agent, thread, maxEvents],
  );
}

/** Follows one run at a time. */
export class RunDisplay {
  readonly store = new Store(IDLE);
  readonly #client: Tollgate;
  #run: Run | undefined;

  constructor(client: Tollgate) {
    this.#client = client;
  }

  start(message: string, options: RunOptions, maxEvents: number = MAX_EVENTS): Run {
    const run = this.#client.run(message, options);
    this.#run = run;
    this.store.update({ ...IDLE, state: 'starting' });
    void this.#follow(run, maxEvents);
    return run;
  }

  cancel(): void {
    // A failure to cancel leaves the run as it is, and its end shows up anyway.
    void this.#run?.cancel().catch(() => {});
  }

  async #follow(run: Run, maxEvents: number): Promise<void> {
    const text = new RunText();
    const update = (changes: Partial<RunSnapshot>) => {
      if (this.#run === run) this.store.update(changes);
    };
    try {
      const { runId, threadId } = await run.accepted;
      update({ state: 'running', runId, threadId });
      for await (const event of run) {
        if (this.#run !== run) return;
        text.add(event);
        const { events, eventCount } = this.store.get();
        update({ text: text.value, events: [...events, event].slice(-maxEvents), eventCount: eventCount + 1 });
      }
    } catch {
      // `result` rejects with the same error, or knows the end of a run whose events were lost.
    }
    try {
      const result = await run.result();
      update({ state: 'completed', result, text: result.text });
    } catch (cause) {
      const error = asTollgateError(cause);
      update({ state: error.code === 'RUN_CANCELLED' ? 'cancelled' : 'failed', error });
    }
  }
}
