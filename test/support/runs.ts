import type { ReceivedEvent } from './buffered-events.ts';

/** Returns the durable events of a client, in order of arrival. */
export function durable(events: readonly ReceivedEvent[]): ReceivedEvent[] {
  return events.filter(({ type, fields }) => typeof fields.seq === 'number' && type !== 'connection_established');
}

/** Returns the `seq` of the durable events, in order of arrival. */
export function seqs(events: readonly ReceivedEvent[]): number[] {
  return durable(events).map(({ fields }) => fields.seq as number);
}

const TERMINAL = ['agent_completed', 'agent_failed', 'agent_cancelled'];

export function isTerminalType(type: string): boolean {
  return TERMINAL.includes(type);
}

export function isTerminal({ type }: ReceivedEvent): boolean {
  return isTerminalType(type);
}

/** 1, 2, …, n. */
export function upTo(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i + 1);
}
