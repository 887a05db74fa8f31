import type { AgUiEvent } from './events.ts';

/** A text or reasoning message that has begun and not ended. */
export interface OpenMessage {
  readonly kind: 'text' | 'reasoning';
  /** Id of the message. */
  readonly id: string;
  /** Step of the agent that the message belongs to. */
  readonly step: unknown;
}

/** The open text and reasoning messages of a stream: a client rejects a run that ends before they do. */
export class OpenMessages {
  #messages: readonly OpenMessage[] = [];

  find(isWanted: (message: OpenMessage) => boolean): OpenMessage | undefined {
    return this.#messages.find(isWanted);
  }

  /** Returns the events that begin a message. */
  open(message: OpenMessage): readonly AgUiEvent[] {
    this.#messages = [...this.#messages, message];
    return startOf(message);
  }

  /** Returns the events that end the messages; by default all of them. */
  close(isEnding: (message: OpenMessage) => boolean = () => true): readonly AgUiEvent[] {
    const ending = this.#messages.filter(isEnding);
    this.#messages = this.#messages.filter((message) => !ending.includes(message));
    return ending.flatMap(endOf);
  }

  /** Returns the events that begin the open messages again, for a client that has received a snapshot. */
  reopened(): readonly AgUiEvent[] {
    return this.#messages.flatMap(startOf);
  }
}

/** The events that begin and end the text message of an answer that arrives as a whole. */
export function wholeText(messageId: string, delta: string): readonly AgUiEvent[] {
  const message: OpenMessage = { kind: 'text', id: messageId, step: undefined };
  return [...startOf(message), { type: 'TEXT_MESSAGE_CONTENT', messageId, delta }, ...endOf(message)];
}

function startOf({ kind, id }: OpenMessage): AgUiEvent[] {
  if (kind === 'text') return [{ type: 'TEXT_MESSAGE_START', messageId: id, role: 'assistant' }];
  return [
    { type: 'REASONING_START', messageId: id },
    { type: 'REASONING_MESSAGE_START', messageId: id, role: 'reasoning' },
  ];
}

function endOf({ kind, id }: OpenMessage): AgUiEvent[] {
  if (kind === 'text') return [{ type: 'TEXT_MESSAGE_END', messageId: id }];
  return [
    { type: 'REASONING_MESSAGE_END', messageId: id },
    { type: 'REASONING_END', messageId: id },
  ];
}
