import '../../ui/timeline.css';
import { path, request } from '../../api/http.ts';
import type { LoggedEvent, RunDetail } from '../../api/types.ts';
import { duration, timeOfDay, utc } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { href, navigate } from '../../lib/router.ts';
import { useConfig } from '../../session/config.ts';
import { Action } from '../../ui/action.tsx';
import { Status } from '../../ui/badge.tsx';
import { Facts, Page, Panel } from '../../ui/page.tsx';
import { Empty, Loaded } from '../../ui/state.tsx';
import { Foreign, Json, LongText, Time } from '../../ui/text.tsx';

const REFRESH_MS = 3_000;
const OPEN = new Set(['queued', 'running', 'waiting']);

interface RunPageProps {
  readonly userId: string;
  readonly runId: string;
}

export function RunPage({ userId, runId }: RunPageProps) {
  const detail = useResource(
    runId,
    (signal) => request<RunDetail>(path`/v1/admin/users/${userId}/runs/${runId}`, { signal }),
    { refreshMs: REFRESH_MS },
  );
  const reload = () => void detail.reload();
  return (
    <Page
      title={runId}
      parent={{ title: 'Runs', href: href('runs', { user: userId }) }}
      actions={detail.data && <RunActions userId={userId} run={detail.data.run} onDone={reload} />}
    >
      <Loaded resource={detail}>{(data) => <Detail userId={userId} detail={data} />}</Loaded>
    </Page>
  );
}

interface RunActionsProps {
  readonly userId: string;
  readonly run: RunDetail['run'];
  readonly onDone: () => void;
}

function RunActions({ userId, run, onDone }: RunActionsProps) {
  const target = path`/v1/admin/users/${userId}/runs/${run.run_id}`;
  if (OPEN.has(run.status)) {
    return (
      <Action
        label="Cancel run"
        kind="danger"
        title="Cancel the run"
        consequence="It ends with agent_cancelled. Calls that are in flight are stopped or recorded."
        run={async () => {
          await request(`${target}/cancel`, { method: 'POST' });
          return 'The cancellation is requested.';
        }}
        onDone={onDone}
      />
    );
  }
  return <RetryRun userId={userId} runId={run.run_id} />;
}

interface RetryRunProps {
  readonly userId: string;
  readonly runId: string;
  readonly small?: boolean;
}

/** Starts a run that has ended again, and shows the new one. */
export function RetryRun({ userId, runId, small = false }: RetryRunProps) {
  return (
    <Action
      label="Run again"
      small={small}
      title="Run it again"
      consequence="Starts a new run with the same message, agent and thread, as the same user. Its tool calls are charged."
      run={async () => {
        const target = path`/v1/admin/users/${userId}/runs/${runId}/retry`;
        const { run_id } = await request<{ run_id: string }>(target, { method: 'POST' });
        navigate(href(['runs', userId, run_id]));
        return `Started as ${run_id}.`;
      }}
    />
  );
}

function Detail({ userId, detail }: { readonly userId: string; readonly detail: RunDetail }) {
  const { run, events, complete } = detail;
  const start = Date.parse(run.accepted_at ?? events[0]?.at ?? '');
  return (
    <>
      <div class="columns">
        <Panel title="Run">
          <Facts
            rows={[
              ['Status', <Status key="status" value={run.status} />],
              ['User', <UserLink key="user" id={userId} />],
              ['Agent', <Foreign key="agent" text={run.agent} />],
              ['Thread', <Foreign key="thread" text={run.thread_id} mono />],
              ['Accepted', <Time key="accepted" at={run.accepted_at} exact />],
              ['Ended', <Time key="ended" at={run.ended_at} exact />],
              ...(run.trace_id ? [['Trace', <Trace key="trace" id={run.trace_id} />] as const] : []),
              ...(run.reason ? [['Reason', <Foreign key="reason" text={run.reason} />] as const] : []),
            ]}
          />
        </Panel>
        <Panel title="Message and answer">
          <div class="stack">
            {run.message && <LongText text={run.message} />}
            {run.final_response && <LongText text={run.final_response} class="long-text answer-text" />}
            {!run.message && !run.final_response && <span class="muted">No longer stored.</span>}
          </div>
        </Panel>
      </div>
      <Panel title="Timeline" actions={!complete && <span class="muted">The event log no longer has all events.</span>}>
        {events.length === 0 ? (
          <Empty title="No events yet" />
        ) : (
          <ol class="timeline static">
            {events.map((event) => (
              <TimelineEvent key={event.seq} event={event} offsetMs={Date.parse(event.at) - start} />
            ))}
          </ol>
        )}
      </Panel>
    </>
  );
}

function TimelineEvent({ event, offsetMs }: { readonly event: LoggedEvent; readonly offsetMs: number }) {
  const { seq, type, at, fields } = event;
  return (
    <li data-type={type}>
      <time class="timeline-offset mono" dateTime={at} title={`${timeOfDay(at)}, ${utc(at)}`}>
        +{duration(Math.max(0, offsetMs))}
      </time>
      <div class="timeline-body">
        <div class="row spread">
          <strong class="mono">
            <bdi>{type}</bdi>
          </strong>
          <span class="muted">seq {seq}</span>
        </div>
        <Summary fields={fields} />
        <details>
          <summary class="muted">Fields</summary>
          <Json value={fields} label={`Fields of ${type}`} />
        </details>
      </div>
    </li>
  );
}

/** The one field of an event that says most. */
function Summary({ fields }: { readonly fields: LoggedEvent['fields'] }) {
  const text = [fields.tool_name, fields.thought, fields.reasoning, fields.message, fields.final_response].find(
    (value) => typeof value === 'string' && value !== '',
  );
  return typeof text === 'string' ? <Foreign text={text} /> : null;
}

function UserLink({ id }: { readonly id: string }) {
  return (
    <a href={href(['users', id])}>
      <Foreign text={id} mono />
    </a>
  );
}

function Trace({ id }: { readonly id: string }) {
  const { traces } = useConfig().links;
  if (!traces) return <Foreign text={id} mono />;
  return (
    <a href={traces.replaceAll('{trace_id}', encodeURIComponent(id))} target="_blank" rel="noreferrer">
      <Foreign text={id} mono />
    </a>
  );
}
