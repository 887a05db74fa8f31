import type { InputAnswer, Run, RunEvent, RunOptions, RunResult, Tollgate, TollgateError } from '@tollgate/client';
import { useMemo } from 'react';
import { asTollgateError } from './errors.ts';
import { useTollgate } from './provider.ts';
import {
  inputsAfter,
  inputsAfterAnswer,
  inputsWhileSending,
  openInput,
  type Respond,
  type RunInput,
} from './run-inputs.ts';
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
  /** What the run asks its user now: approvals, choices and forms. The run waits for `respond`. */
  readonly inputs: readonly RunInput[];
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
  /** Answers one of `inputs`. The first answer of any tab or device counts. */
  readonly respond: Respond;
}

const IDLE: RunSnapshot = {
  state: 'idle',
  runId: undefined,
  threadId: undefined,
  text: '',
  events: [],
  eventCount: 0,
  inputs: [],
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
      respond: display.respond,
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

  readonly respond: Respond = ({ input_id }, answer) => void this.#respond(input_id, answer);

  async #respond(input_id: string, answer: InputAnswer): Promise<void> {
    const run = this.#run;
    const { runId, inputs } = this.store.get();
    if (runId === undefined || !inputs.some((input) => input.input_id === input_id && !input.isSending)) return;
    const update = (change: (inputs: readonly RunInput[]) => readonly RunInput[]) => {
      if (this.#run === run) this.store.update({ inputs: change(this.store.get().inputs) });
    };
    update((open) => inputsWhileSending(open, input_id));
    try {
      await this.#client.respond({ run_id: runId, input_id }, answer);
      update((open) => inputsAfterAnswer(open, input_id));
    } catch (cause) {
      update((open) => inputsAfterAnswer(open, input_id, asTollgateError(cause)));
    }
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
        const { events, eventCount, inputs } = this.store.get();
        update({
          text: text.value,
          events: [...events, event].slice(-maxEvents),
          eventCount: eventCount + 1,
          inputs: inputsAfter(inputs, event),
        });
      }
    } catch {
      // `result` rejects with the same error, or knows the end of a run whose events were lost.
      void this.#readInputs(run, update);
    }
    try {
      const result = await run.result();
      update({ state: 'completed', result, text: result.text, inputs: [] });
    } catch (cause) {
      const error = asTollgateError(cause);
      update({ state: error.code === 'RUN_CANCELLED' ? 'cancelled' : 'failed', error, inputs: [] });
    }
  }

  /** A run whose events were lost may wait: the gateway knows for what. */
  async #readInputs(run: Run, update: (changes: Partial<RunSnapshot>) => void): Promise<void> {
    try {
      const { runId } = await run.accepted;
      const { input_requests = [] } = await this.#client.runStatus(runId);
      if (this.store.get().state === 'running') update({ inputs: input_requests.map(openInput) });
    } catch {
      // The error of the run is the one to show.
    }
  }
}
