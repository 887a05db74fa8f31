import { request } from '../api/http.ts';
import type { QueueReport } from '../api/types.ts';
import { count, duration } from '../lib/format.ts';
import { useResource } from '../lib/resource.ts';
import { href } from '../lib/router.ts';
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
      about="Jobs that wait for a worker. Add workers when the oldest job waits for long."
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
                columns={FAILED}
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
  { title: 'Oldest waits', kind: 'number', cell: ({ oldest_ms }) => duration(oldest_ms) },
];

const FAILED: readonly Column<FailedJob>[] = [
  { title: 'Job', cell: ({ job_id }) => <Foreign text={job_id} mono /> },
  { title: 'Queue', cell: ({ queue }) => <span class="mono">{queue}</span> },
  { title: 'Reason', cell: ({ reason }) => <Foreign text={reason} /> },
  { title: 'Failed', cell: ({ at }) => <Time at={at} /> },
];
