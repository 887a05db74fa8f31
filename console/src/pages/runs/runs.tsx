import { request } from '../../api/http.ts';
import type { Paged, RunSummary } from '../../api/types.ts';
import { duration } from '../../lib/format.ts';
import { href, type PageProps } from '../../lib/router.ts';
import { shorten } from '../../lib/shorten.ts';
import { Status } from '../../ui/badge.tsx';
import { FilterField, Filters } from '../../ui/filters.tsx';
import { More, usePages } from '../../ui/more.tsx';
import { Page, Panel } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign, Time } from '../../ui/text.tsx';
import { RetryRun, RunPage } from './run.tsx';

type RunList = Paged & { readonly runs: readonly RunSummary[] };
const STATUSES = ['queued', 'running', 'waiting', 'completed', 'failed', 'cancelled'];
const MESSAGE_LENGTH = 90;

export function Runs({ route }: PageProps) {
  const [userId, runId] = route.rest;
  if (userId !== undefined && runId !== undefined) return <RunPage key={runId} userId={userId} runId={runId} />;
  const filter = (name: string) => route.query.get(name) ?? '';
  return <RunsPage user={filter('user')} agent={filter('agent')} status={filter('status')} />;
}

interface RunFilters {
  readonly user: string;
  readonly agent: string;
  readonly status: string;
}

function RunsPage({ user, agent, status }: RunFilters) {
  const runs = usePages(
    JSON.stringify([user, agent, status]),
    (cursor, signal) => {
      return request<RunList>('/v1/admin/runs', { query: { user_id: user, agent, status, cursor }, signal });
    },
    (page) => page.runs,
  );
  return (
    <Page
      title="Runs"
      about={
        user === ''
          ? 'Runs of all users in progress, and those that failed or were cancelled in the last 24 hours. Completed runs are listed per user.'
          : 'All runs of the user in the last 24 hours, newest first.'
      }
      actions={
        <button type="button" class="button" onClick={() => void runs.reload()}>
          Refresh
        </button>
      }
    >
      <FilterForm user={user} agent={agent} status={status} />
      <Panel title="Runs" flush>
        <Loaded resource={runs}>
          {(rows) => (
            <Table
              caption="Runs"
              columns={COLUMNS}
              rows={rows}
              keyOf={({ run_id }) => run_id}
              empty={user === '' && status === '' ? 'No run is in progress, none has failed' : 'No run matches'}
              emptyHint={user === '' && 'Enter a user id to see all runs of that user in the last 24 hours.'}
            />
          )}
        </Loaded>
        <More list={runs} />
      </Panel>
    </Page>
  );
}

function FilterForm({ user, agent, status }: RunFilters) {
  return (
    <Filters>
      <FilterField label="User id" name="user" value={user} wide />
      <FilterField label="Agent" name="agent" value={agent} />
      <label class="field">
        <span>Status</span>
        <select class="input" name="status">
          <option value="">any</option>
          {STATUSES.map((value) => (
            <option key={value} selected={value === status}>
              {value}
            </option>
          ))}
        </select>
      </label>
    </Filters>
  );
}

function isUnsuccessful({ status }: RunSummary): boolean {
  return status === 'failed' || status === 'cancelled';
}

const COLUMNS: readonly Column<RunSummary>[] = [
  {
    title: 'Run',
    cell: ({ run_id, user_id = '' }) => (
      <a href={href(['runs', user_id, run_id])}>
        <Foreign text={run_id} mono />
      </a>
    ),
  },
  { title: 'Status', cell: ({ status }) => <Status value={status} /> },
  {
    title: 'User',
    cell: ({ user_id = '' }) => (
      <a href={href(['users', user_id])}>
        <Foreign text={user_id} mono />
      </a>
    ),
  },
  { title: 'Agent', cell: ({ agent }) => <Foreign text={agent} /> },
  {
    title: 'Message',
    cell: ({ message, reason }) => (
      <>
        <Foreign text={message && shorten(message, MESSAGE_LENGTH)} />
        {reason && (
          <div class="bad-text">
            <Foreign text={reason} />
          </div>
        )}
      </>
    ),
  },
  { title: 'Accepted', cell: ({ accepted_at }) => <Time at={accepted_at} /> },
  { title: 'Took', kind: 'number', cell: (run) => duration(tookMs(run)) },
  {
    title: 'Actions',
    kind: 'actions',
    cell: (run) => isUnsuccessful(run) && <RetryRun userId={run.user_id ?? ''} runId={run.run_id} small />,
  },
];

function tookMs({ accepted_at, ended_at }: RunSummary): number | null {
  return accepted_at && ended_at ? Date.parse(ended_at) - Date.parse(accepted_at) : null;
}
