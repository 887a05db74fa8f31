import { useEffect, useRef, useState } from 'preact/hooks';
import { Badge, Status } from '../../ui/badge.tsx';
import { LongText, Time } from '../../ui/text.tsx';
import type { PlaygroundController } from './controller.ts';
import { answerOf, isOpen, type Turn } from './turns.ts';

interface ChatProps {
  readonly controller: PlaygroundController;
  readonly agent: string;
  /** Request id of the turn whose timeline is shown. */
  readonly selected: string | undefined;
  readonly onSelect: (requestId: string | undefined) => void;
}

const SUGGESTIONS = ['How is my workload doing?', 'Is the system healthy?', 'What can you do?'];

export function Chat({ controller, agent, selected, onSelect }: ChatProps) {
  const turns = controller.turns.value;
  const end = useRef<HTMLDivElement>(null);
  const answer = turns.at(-1);
  const length = answer?.entries.length;
  // Follows the text as it grows.
  useEffect(() => {
    const log = end.current;
    if (log) log.scrollTop = log.scrollHeight;
  }, [turns.length, length]);
  const ask = (message: string) => {
    onSelect(undefined);
    controller.ask(message, agent);
  };
  return (
    <section class="panel chat">
      <div class="panel-head">
        <h2>Chat</h2>
        {turns.length > 0 && (
          <button
            type="button"
            class="button"
            data-kind="quiet"
            data-size="small"
            onClick={() => {
              controller.turns.value = [];
            }}
          >
            Clear
          </button>
        )}
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: an area that scrolls has to be reachable with the keyboard */}
      <div class="chat-log" ref={end} tabIndex={0} role="log" aria-label="Messages">
        {turns.length === 0 && <Suggestions onChoose={ask} />}
        {turns.map((turn) => (
          <TurnView
            key={turn.requestId}
            turn={turn}
            selected={turn.requestId === selected}
            onSelect={() => onSelect(turn.requestId)}
            onCancel={() => turn.runId && void controller.cancel(turn.runId)}
          />
        ))}
      </div>
      <Composer onSend={ask} />
    </section>
  );
}

function Suggestions({ onChoose }: { readonly onChoose: (message: string) => void }) {
  return (
    <div class="state">
      <strong>Ask the agent something</strong>
      <div class="row centered">
        {SUGGESTIONS.map((text) => (
          <button key={text} type="button" class="button" data-size="small" onClick={() => onChoose(text)}>
            {text}
          </button>
        ))}
      </div>
    </div>
  );
}

interface TurnViewProps {
  readonly turn: Turn;
  readonly selected: boolean;
  readonly onSelect: () => void;
  readonly onCancel: () => void;
}

function TurnView({ turn, selected, onSelect, onCancel }: TurnViewProps) {
  const text = answerOf(turn);
  return (
    <article class="turn" data-selected={selected || undefined}>
      <div class="question">
        <LongText text={turn.message} />
      </div>
      <div class="answer" data-final={turn.status === 'completed' || undefined}>
        {text !== '' && <LongText text={text} />}
        {text === '' && isOpen(turn) && <span class="muted">Waiting for the first event …</span>}
        {turn.problem && (
          <p class="wrap">
            <Badge tone="bad">{turn.status}</Badge> <bdi>{turn.problem}</bdi>
          </p>
        )}
      </div>
      <div class="turn-foot">
        <Status value={turn.status} />
        <span class="muted">
          <Time at={turn.sentAt} exact />
        </span>
        <button type="button" class="link-button" aria-pressed={selected} onClick={onSelect}>
          Timeline
        </button>
        {isOpen(turn) && turn.runId && (
          <button type="button" class="link-button" onClick={onCancel}>
            Cancel
          </button>
        )}
      </div>
    </article>
  );
}

function Composer({ onSend }: { readonly onSend: (message: string) => void }) {
  const [text, setText] = useState('');
  const send = () => {
    if (text.trim() === '') return;
    onSend(text);
    setText('');
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="visually-hidden" for="message">
        Message
      </label>
      <textarea
        id="message"
        class="input"
        rows={2}
        placeholder="Message to the agent"
        dir="auto"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
          event.preventDefault();
          send();
        }}
      />
      <button type="submit" class="button" data-kind="primary">
        Send
      </button>
    </form>
  );
}
