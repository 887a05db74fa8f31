import { path, request } from '../api/http.ts';
import type { QueueReport } from '../api/types.ts';
import { count } from '../lib/format.ts';
import { useResource } from '../lib/resource.ts';
import { href } from '../lib/router.ts';
import { Action } from '../ui/action.tsx';
import { Page, Panel } from '../ui/page.tsx';
import { Loaded } from '../ui/state.tsx';
import { type Column, Table } from '../ui/table.tsx';
import { Foreign, Time } from '../ui/text.tsx';

const REFRESH_MS = 5_000;
type Queue = QueueReport['queues'][number];
type FailedJob = QueueReport['failed'][number];

export function Queues() {
  const queues = useResource('queues', (signal) => request<QueueReport>('/v1/admin/queues', { signal }), {
    refreshMs: REFRESH_MS,
  });
  return (
    <Page
      title="Queues"
      about="What waits for a worker. Add workers when runs wait."
      actions={<a href={href('runs', { status: 'failed' })}>Failed runs</a>}
    >
      <Loaded resource={queues}>
        {({ queues: all, failed }) => (
          <>
            <Panel title="Queues" flush>
              <Table
                caption="Queues"
                columns={QUEUES}
                rows={all}
                keyOf={({ name }) => name}
                empty="No queue exists yet"
              />
            </Panel>
            <Panel title="Failed jobs" flush>
              <Table
                caption="Failed jobs"
                columns={failedColumns(() => void queues.reload())}
                rows={failed}
                keyOf={({ queue, job_id }) => `${queue} ${job_id}`}
                empty="No job has failed"
              />
            </Panel>
          </>
        )}
      </Loaded>
    </Page>
  );
}

const QUEUES: readonly Column<Queue>[] = [
  { title: 'Queue', cell: ({ name }) => <span class="mono">{name}</span> },
  { title: 'Waiting', kind: 'number', cell: ({ waiting }) => count(waiting) },
  { title: 'Active', kind: 'number', cell: ({ active }) => count(active) },
  { title: 'Delayed', kind: 'number', cell: ({ delayed }) => count(delayed) },
  {
    title: 'Failed',
    kind: 'number',
    cell: ({ failed }) => <span class={failed > 0 ? 'bad-text' : undefined}>{count(failed)}</span>,
  },
];

function failedColumns(reload: () => void): readonly Column<FailedJob>[] {
  return [
    { title: 'Job', cell: ({ name }) => <span class="mono">{name}</span> },
    { title: 'Reason', cell: ({ reason }) => <Foreign text={reason} /> },
    { title: 'Attempts', kind: 'number', cell: ({ attempts }) => count(attempts) },
    { title: 'Failed', cell: ({ at }) => <Time at={at} /> },
    {
      title: 'Actions',
      kind: 'actions',
      cell: ({ queue, job_id, name }) => (
        <Action
          label="Retry"
          small
          title={`Retry ${name}`}
          consequence="The job waits for a worker again. A job that runs twice does its work once."
          run={async () => {
            await request(path`/v1/admin/queues/${queue}/jobs/${job_id}/retry`, { method: 'POST' });
            return `${name} waits for a worker.`;
          }}
          onDone={reload}
        />
      ),
    },
  ];
}
