import { type DurableEvent, isTerminalEvent, type RunEvent } from '@tollgate/client';

/** One message of the user, and everything that followed. */
export interface Turn {
  readonly requestId: string;
  readonly message: string;
  /** When the request was sent, in milliseconds since the epoch. */
  readonly sentAt: number;
  readonly runId: string | undefined;
  readonly status: 'sending' | 'running' | 'waiting' | 'completed' | 'failed' | 'cancelled' | 'refused';
  readonly entries: readonly Entry[];
  /** Why the request was refused, or the run failed. */
  readonly problem: string | undefined;
}

/** A line of the timeline: an event of the run, or what happened to the connection meanwhile. */
export type Entry =
  | { readonly kind: 'event'; readonly at: number; readonly event: RunEvent }
  | { readonly kind: 'note'; readonly at: number; readonly text: string; readonly tone: 'ok' | 'warn' };

const MAX_ENTRIES = 3_000;
const STATUS_AFTER: Readonly<Record<string, Turn['status']>> = {
  input_requested: 'waiting',
  input_received: 'running',
  input_expired: 'running',
  agent_completed: 'completed',
  agent_failed: 'failed',
  agent_cancelled: 'cancelled',
};

export function newTurn(requestId: string, message: string): Turn {
  const rest = { runId: undefined, status: 'sending', entries: [], problem: undefined } as const;
  return { requestId, message, sentAt: Date.now(), ...rest };
}

export function isRunEvent(event: DurableEvent): event is RunEvent {
  return typeof event.run_id === 'string' && typeof event.request_id === 'string';
}

export function isOpen({ status }: Turn): boolean {
  return status === 'sending' || status === 'running' || status === 'waiting';
}

export function withEvent(turn: Turn, event: RunEvent, at: number): Turn {
  const status = STATUS_AFTER[event.type] ?? (turn.status === 'sending' ? 'running' : turn.status);
  const problem = event.type === 'agent_failed' ? `${event.error.code}: ${event.error.message}` : turn.problem;
  return { ...withEntry(turn, { kind: 'event', at, event }), runId: event.run_id ?? turn.runId, status, problem };
}

export function withEntry(turn: Turn, entry: Entry): Turn {
  return { ...turn, entries: [...turn.entries.slice(1 - MAX_ENTRIES), entry] };
}

/** Consecutive deltas of one step are one line. */
export interface Line {
  readonly entry: Entry;
  /** The joined text of the deltas; empty for other events. */
  readonly text: string;
  readonly deltas: number;
}

export function linesOf(entries: readonly Entry[]): Line[] {
  const lines: Line[] = [];
  for (const entry of entries) {
    const text = deltaOf(entry);
    const last = lines.at(-1);
    if (last && text !== undefined && continues(last.entry, entry)) {
      lines[lines.length - 1] = { ...last, text: last.text + text, deltas: last.deltas + 1 };
    } else lines.push({ entry, text: text ?? '', deltas: 1 });
  }
  return lines;
}

function deltaOf(entry: Entry): string | undefined {
  if (entry.kind === 'note') return undefined;
  if (entry.event.type === 'agent_thinking') return entry.event.thought;
  return entry.event.type === 'agent_reasoning' ? entry.event.reasoning : undefined;
}

function continues(before: Entry, entry: Entry): boolean {
  if (before.kind === 'note' || entry.kind === 'note') return false;
  const [one, other] = [before.event, entry.event];
  return 'step' in one && 'step' in other && one.type === other.type && one.step === other.step;
}

/** The answer; before it, the text that the agent has streamed so far. */
export function answerOf({ entries }: Turn): string {
  const end = entries.findLast((entry) => entry.kind === 'event' && isTerminalEvent(entry.event.type));
  if (end?.kind === 'event' && end.event.type === 'agent_completed') return end.event.final_response;
  const steps = linesOf(entries).filter(({ entry }) => entry.kind === 'event' && entry.event.type === 'agent_thinking');
  return steps.at(-1)?.text ?? '';
}

/** Requests of the run that still wait for an answer. */
export function openInputs({ entries }: Turn): Extract<RunEvent, { type: 'input_requested' }>[] {
  const events = entries.flatMap((entry) => (entry.kind === 'event' ? [entry.event] : []));
  const ended = new Set<string>();
  for (const event of events) {
    if (event.type === 'input_received' || event.type === 'input_expired') ended.add(event.input_id);
  }
  return events.flatMap((event) => (event.type === 'input_requested' && !ended.has(event.input_id) ? [event] : []));
}
