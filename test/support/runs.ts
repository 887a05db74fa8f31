import type { ReceivedEvent } from './buffered-events.ts';

/** The durable events among what a client received, in the order of their arrival. */
export function durable(events: readonly ReceivedEvent[]): ReceivedEvent[] {
  return events.filter(({ type, fields }) => typeof fields.seq === 'number' && type !== 'connection_established');
}

/** The `seq` of the durable events, in the order of their arrival. */
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
