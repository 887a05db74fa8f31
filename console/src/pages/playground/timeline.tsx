import '../../ui/timeline.css';
import type { RunEvent, ToolDescription } from '@tollgate/client';
import type { ComponentChildren } from 'preact';
import { duration, plural, timeOfDay, utc } from '../../lib/format.ts';
import { href } from '../../lib/router.ts';
import { canRead } from '../../session/session.ts';
import { Badge } from '../../ui/badge.tsx';
import { Foreign, Json, LongText } from '../../ui/text.tsx';
import type { PlaygroundController } from './controller.ts';
import { InputForm } from './input-form.tsx';
import { type Line, linesOf, openInputs, type Turn } from './turns.ts';

interface TimelineProps {
  readonly turn: Turn;
  readonly controller: PlaygroundController;
}

/** The events of a run with their times after the request. A running tool call and its result are one card. */
export function Timeline({ turn, controller }: TimelineProps) {
  const inputs = openInputs(turn);
  return (
    <>
      {inputs.map((input) => (
        <InputForm key={input.input_id} request={input} onAnswer={(answer) => controller.respond(input, answer)} />
      ))}
      <ol class="timeline">
        {linesOf(turn.entries).map((line, index) => (
          // Lines are only ever added at the end.
          <TimelineLine key={index} line={line} turn={turn} tools={controller.tools.value} />
        ))}
      </ol>
    </>
  );
}

interface LineProps {
  readonly line: Line;
  readonly turn: Turn;
  readonly tools: readonly ToolDescription[];
}

function TimelineLine({ line: { entry, text, deltas }, turn, tools }: LineProps) {
  const offset = `+${duration(Math.max(0, entry.at - turn.sentAt))}`;
  if (entry.kind === 'note') {
    return (
      <li class="timeline-note" data-tone={entry.tone}>
        <Offset at={entry.at} text={offset} />
        <div class="timeline-body">{entry.text}</div>
      </li>
    );
  }
  const { event } = entry;
  return (
    <li data-type={event.type}>
      <Offset at={entry.at} text={offset} />
      <div class="timeline-body">
        <div class="row spread">
          <strong class="mono">{event.type}</strong>
          <span class="muted">
            {deltas > 1 && `${plural(deltas, 'delta')} · `}seq {event.seq}
          </span>
        </div>
        <EventDetail event={event} text={text} tools={tools} />
      </div>
    </li>
  );
}

function Offset({ at, text }: { readonly at: number; readonly text: string }) {
  return (
    <time class="timeline-offset mono" dateTime={new Date(at).toISOString()} title={`${timeOfDay(at)}, ${utc(at)}`}>
      {text}
    </time>
  );
}

function EventDetail({ event, text, tools }: { event: RunEvent; text: string; tools: readonly ToolDescription[] }) {
  switch (event.type) {
    case 'agent_started':
      return (
        <div class="muted">
          Agent <Foreign text={event.agent_name} mono />
        </div>
      );
    case 'agent_thinking':
    case 'agent_reasoning':
      return <LongText text={text} class="long-text muted" />;
    case 'tool_executing':
      return (
        <ToolCard name={event.tool_name} tools={tools}>
          <details>
            <summary>Arguments</summary>
            <Json value={event.arguments} label="Arguments of the call" />
          </details>
        </ToolCard>
      );
    case 'tool_completed':
      return <ToolResult event={event} tools={tools} />;
    case 'input_requested':
      return <LongText text={event.message} />;
    case 'input_received':
      return <div>Answered: {event.action}</div>;
    case 'agent_completed':
      return (
        <div class="muted">
          {duration(event.duration_ms)} in the worker
          {event.tools_used.length > 0 && `, ${plural(event.tools_used.length, 'tool')} used`}
        </div>
      );
    case 'agent_failed':
      return (
        <div class="wrap">
          <Badge tone="bad">{event.error.code}</Badge> <bdi>{event.error.message}</bdi>
        </div>
      );
    case 'agent_state':
    case 'agent_activity':
      return (
        <details>
          <summary>Content</summary>
          <Json value={event} label="Content of the event" />
        </details>
      );
    default:
      return null;
  }
}

function ToolResult({
  event,
  tools,
}: {
  event: Extract<RunEvent, { type: 'tool_completed' }>;
  tools: readonly ToolDescription[];
}) {
  const { tool_name, success, duration_ms, usage_record_id, error, result } = event;
  return (
    <ToolCard name={tool_name} tools={usage_record_id ? tools : []}>
      <div class="row">
        <Badge tone={success ? 'ok' : 'bad'}>{success ? 'success' : (error?.code ?? 'failed')}</Badge>
        <span class="muted">{duration(duration_ms)}</span>
        {usage_record_id ? (
          <span class="muted">
            Record <RecordLink id={usage_record_id} />
          </span>
        ) : (
          <span class="muted">not charged</span>
        )}
      </div>
      {error && <div class="wrap">{error.message}</div>}
      {result !== undefined && (
        <details>
          <summary>Result</summary>
          <Json value={result} label="Result of the call" />
        </details>
      )}
    </ToolCard>
  );
}

function RecordLink({ id }: { readonly id: string }) {
  if (!canRead.value) return <span class="mono wrap">{id}</span>;
  return (
    <a class="mono wrap" href={href(['usage', 'records'], { record: id })}>
      {id}
    </a>
  );
}

interface ToolCardProps {
  readonly name: string;
  readonly tools: readonly ToolDescription[];
  readonly children: ComponentChildren;
}

function ToolCard({ name, tools, children }: ToolCardProps) {
  const units = tools.find((tool) => tool.name === name)?.units;
  return (
    <div class="tool-card">
      <div class="row spread">
        <Foreign text={name} mono />
        {units !== undefined && <span class="muted">{plural(units, 'unit')}</span>}
      </div>
      {children}
    </div>
  );
}
