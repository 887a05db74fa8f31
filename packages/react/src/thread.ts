import type { DurableEvent, ThreadMessage, Tollgate, TollgateError } from '@tollgate/client';
import { useMemo } from 'react';
import { asTollgateError } from './errors.ts';
import { useTollgate } from './provider.ts';
import { RunDisplay, type RunSnapshot } from './run.ts';
import type { Respond } from './run-inputs.ts';
import { Store, useKept, useStore } from './store.ts';

/** A message of the thread's history, or one that this page sent or received and that the history has by now. */
export interface ThreadTurn {
  readonly id: string;
  readonly role: 'user' | 'assistant';
  readonly text: string;
  readonly runId: string | undefined;
}

export interface ThreadSnapshot {
  /** Oldest first. */
  readonly messages: readonly ThreadTurn[];
  readonly isLoading: boolean;
  /** Whether `loadOlder` finds further messages. */
  readonly hasOlder: boolean;
  /** Why the history could not be loaded. */
  readonly error: TollgateError | undefined;
}

export interface ThreadHandle extends ThreadSnapshot {
  /** The latest run that this component started in the thread. */
  readonly run: RunSnapshot;
  /** Starts a run in the thread. */
  send(message: string, options?: { readonly agent?: string }): void;
  /** Answers one of `run.inputs`. */
  readonly respond: Respond;
  loadOlder(): void;
  /** Loads the latest messages again, for example after an error. */
  reload(): void;
}

/** The messages of a thread. Answers to other tabs and devices arrive as well. */
export function useThread(threadId: string): ThreadHandle {
  const client = useTollgate();
  const thread = useKept(() => new ThreadDisplay(client, threadId), client, threadId);
  const snapshot = useStore(thread.store);
  const run = useStore(thread.run.store);
  return useMemo(
    () => ({
      ...snapshot,
      run,
      send: (message, options) => thread.send(message, options?.agent),
      respond: thread.run.respond,
      loadOlder: () => void thread.load('older'),
      reload: () => void thread.load('latest'),
    }),
    [snapshot, run, thread],
  );
}

class ThreadDisplay {
  readonly store: Store<ThreadSnapshot>;
  readonly run: RunDisplay;
  readonly #client: Tollgate;
  readonly #threadId: string;
  /** Cursor of the next older page; null after the last one. */
  #before: string | null | undefined;
  #sent = 0;

  constructor(client: Tollgate, threadId: string) {
    this.#client = client;
    this.#threadId = threadId;
    this.run = new RunDisplay(client);
    const empty = { messages: [], isLoading: true, hasOlder: false, error: undefined };
    this.store = new Store<ThreadSnapshot>(empty, () => {
      const remove = client.on('event', (event) => this.#receive(event));
      void this.load('latest');
      return remove;
    });
  }

  send(message: string, agent: string | undefined): void {
    this.#sent += 1;
    const id = `sent_${this.#sent}`;
    this.#append({ id, role: 'user', text: message, runId: undefined });
    const run = this.run.start(message, { thread: this.#threadId, ...(agent === undefined ? {} : { agent }) });
    run.accepted.then(
      ({ runId }) => this.#replace(id, (turn) => [{ ...turn, runId }]),
      // The gateway has no such message; `run` has the error.
      () => this.#replace(id, () => []),
    );
  }

  async load(page: 'latest' | 'older'): Promise<void> {
    if (page === 'older' && this.#before === null) return;
    this.store.update({ isLoading: true, error: undefined });
    try {
      const before = page === 'older' ? this.#before : undefined;
      const history = await this.#client.threads.history(this.#threadId, before == null ? {} : { before });
      if (page === 'older' || this.#before === undefined) this.#before = history.before;
      const loaded = history.messages.map(turnOf).reverse();
      this.store.update({
        messages: merged(this.store.get().messages, loaded, page),
        isLoading: false,
        hasOlder: this.#before !== null,
      });
    } catch (cause) {
      this.store.update({ isLoading: false, error: asTollgateError(cause) });
    }
  }

  #receive(event: DurableEvent): void {
    if (event.type !== 'agent_completed' || event.thread_id !== this.#threadId) return;
    const { run_id, final_response } = event as Extract<DurableEvent, { type: 'agent_completed' }>;
    const runId = run_id === null ? undefined : String(run_id);
    this.#append({ id: `answer_${runId}`, role: 'assistant', text: String(final_response), runId });
    // The question of another tab is only in the history.
    if (!this.store.get().messages.some((turn) => turn.role === 'user' && turn.runId === runId)) {
      void this.load('latest');
    }
  }

  #append(turn: ThreadTurn): void {
    const { messages } = this.store.get();
    if (!messages.some((other) => isSame(other, turn))) this.store.update({ messages: [...messages, turn] });
  }

  #replace(id: string, change: (turn: ThreadTurn) => readonly ThreadTurn[]): void {
    const messages = this.store.get().messages.flatMap((turn) => (turn.id === id ? change(turn) : [turn]));
    this.store.update({ messages });
  }
}

function turnOf({ message_id, role, text, run_id }: ThreadMessage): ThreadTurn {
  return { id: message_id, role, text, runId: run_id ?? undefined };
}

/** Whether two turns are one message: of the history by its id, else the question or the answer of one run. */
function isSame(one: ThreadTurn, other: ThreadTurn): boolean {
  return one.id === other.id || (one.runId !== undefined && one.runId === other.runId && one.role === other.role);
}

/** Joins a page of the history with the turns shown. The history decides the order of the turns that it has. */
function merged(
  shown: readonly ThreadTurn[],
  loaded: readonly ThreadTurn[],
  page: 'latest' | 'older',
): readonly ThreadTurn[] {
  if (page === 'older') return [...loaded.filter((turn) => !shown.some((other) => isSame(other, turn))), ...shown];
  const known = shown.map((turn) => loaded.findIndex((other) => isSame(other, turn)));
  const first = known.findIndex((index) => index >= 0);
  const older = first < 0 ? [] : shown.slice(0, first);
  const newer = shown.filter((_, index) => (known[index] ?? -1) < 0 && index >= older.length);
  return [...older, ...loaded, ...newer];
}
