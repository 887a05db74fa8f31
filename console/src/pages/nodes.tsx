import { path, request } from '../api/http.ts';
import type { Node } from '../api/types.ts';
import { bytes, count, duration, plural } from '../lib/format.ts';
import { useResource } from '../lib/resource.ts';
import { Action } from '../ui/action.tsx';
import { Badge, Status } from '../ui/badge.tsx';
import { Page, Panel } from '../ui/page.tsx';
import { Loaded } from '../ui/state.tsx';
import { type Column, Table } from '../ui/table.tsx';
import { Foreign } from '../ui/text.tsx';

const REFRESH_MS = 5_000;
const SLOW_LOOP_MS = 100;

export function Nodes() {
  const nodes = useResource('nodes', (signal) => request<{ nodes: Node[] }>('/v1/admin/nodes', { signal }), {
    refreshMs: REFRESH_MS,
  });
  const reload = () => void nodes.reload();
  return (
    <Page
      title="Nodes"
      about="Each process of the cluster. A drained node stops accepting, moves its clients, exits and leaves this list. The process that replaces it has a new id."
    >
      <Loaded resource={nodes}>
        {({ nodes: all }) => (
          <>
            <Group title="Gateways" kind="gateway" nodes={all} onChange={reload} />
            <Group title="Workers" kind="worker" nodes={all} onChange={reload} />
          </>
        )}
      </Loaded>
    </Page>
  );
}

interface GroupProps {
  readonly title: string;
  readonly kind: Node['role'];
  readonly nodes: readonly Node[];
  readonly onChange: () => void;
}

function Group({ title, kind, nodes, onChange }: GroupProps) {
  const rows = nodes.filter((node) => node.role === kind);
  return (
    <Panel title={`${title} (${rows.length})`} flush>
      <Table
        caption={title}
        columns={columnsOf(kind, onChange)}
        rows={rows}
        keyOf={({ node_id }) => node_id}
        empty={`No ${kind} reports`}
        emptyHint="Check that the processes run and reach Redis."
      />
    </Panel>
  );
}

function columnsOf(role: Node['role'], onChange: () => void): readonly Column<Node>[] {
  const work: Column<Node> =
    role === 'gateway'
      ? { title: 'Connections', kind: 'number', cell: ({ connections }) => count(connections) }
      : { title: 'Runs', kind: 'number', cell: ({ runs }) => count(runs) };
  return [
    { title: 'Node', cell: (node) => <Name node={node} /> },
    { title: 'State', cell: ({ draining }) => <Status value={draining ? 'draining' : 'up'} /> },
    work,
    { title: 'Version', cell: ({ version }) => <Foreign text={version} /> },
    {
      title: 'Up for',
      kind: 'number',
      cell: ({ uptime_seconds, started_at }) => (
        <span title={`since ${started_at}`}>{duration(uptime_seconds * 1_000)}</span>
      ),
    },
    {
      title: 'CPU',
      kind: 'number',
      cell: ({ cpu_percent }) => (cpu_percent === null ? '–' : `${cpu_percent.toFixed(1)} %`),
    },
    {
      title: 'Event loop, p99',
      kind: 'number',
      cell: ({ event_loop: { p99_ms } }) =>
        (p99_ms ?? 0) > SLOW_LOOP_MS ? <Badge tone="warn">{duration(p99_ms)}</Badge> : duration(p99_ms),
    },
    {
      title: 'Memory',
      kind: 'number',
      cell: ({ memory }) => <span title={`heap ${bytes(memory.heap_bytes)}`}>{bytes(memory.rss_bytes)}</span>,
    },
    { title: 'Actions', kind: 'actions', cell: (node) => <Drain node={node} onChange={onChange} /> },
  ];
}

function Name({ node: { node_id, host, this_node } }: { readonly node: Node }) {
  return (
    <>
      <Foreign text={node_id} mono />
      <div class="muted small">
        <Foreign text={host} />
        {this_node && ' · serves this page'}
      </div>
    </>
  );
}

function Drain({ node, onChange }: { readonly node: Node; readonly onChange: () => void }) {
  const { node_id, role, connections } = node;
  if (node.draining) return <span class="muted">Draining</span>;
  const consequence =
    role === 'gateway'
      ? `It sends ${plural(connections, 'client')} away with 1012, spread over DRAIN_SECONDS (see Settings). Clients reconnect to other nodes and resume. The process then exits, and its orchestrator starts a new one: for maintenance of the host, stop that there first.`
      : 'It claims no further run, hands over what it has not finished, and exits. Its orchestrator starts a new one.';
  return (
    <Action
      label="Drain"
      kind="danger"
      small
      title={`Drain ${node_id}`}
      consequence={consequence}
      run={async () => {
        await request(path`/v1/admin/nodes/${node_id}/drain`, { method: 'POST' });
        return `${node_id} drains. It leaves the list when it has stopped.`;
      }}
      onDone={onChange}
    />
  );
}
