import { request } from '../../api/http.ts';
import type { CatalogueReport } from '../../api/types.ts';
import { count } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { Status } from '../../ui/badge.tsx';
import { Panel } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign, Json, Time } from '../../ui/text.tsx';

type Named = CatalogueReport['plans'][number];
type Tool = CatalogueReport['tools'][number];

const nameColumn: Column<Named> = { title: 'Name', cell: ({ name }) => <Foreign text={name} mono /> };
const detailColumn: Column<Named> = {
  title: 'All fields',
  cell: (row) => (
    <details>
      <summary>Show</summary>
      <Json value={row} label={`Fields of ${row.name}`} />
    </details>
  ),
};

export function Plans({ rows }: { readonly rows: CatalogueReport['plans'] }) {
  const columns: readonly Column<Named>[] = [
    nameColumn,
    { title: 'Permissions', cell: ({ permissions }) => <Foreign text={listOf(permissions)} /> },
    { title: 'Threads', kind: 'number', cell: ({ threads }) => limitOf(threads) },
    { title: 'Multiplier', kind: 'number', cell: ({ multiplier }) => limitOf(multiplier) },
    detailColumn,
  ];
  return (
    <Panel title="Plans" flush>
      <Table caption="Plans" columns={columns} rows={rows} keyOf={({ name }) => name} empty="No plans" />
    </Panel>
  );
}

export function Tools({ rows }: { readonly rows: CatalogueReport['tools'] }) {
  const columns: readonly Column<Tool>[] = [
    nameColumn,
    { title: 'Description', cell: ({ description }) => <Foreign text={description} /> },
    { title: 'Permission', cell: ({ permission }) => <Foreign text={permission} /> },
    { title: 'Units', kind: 'number', cell: ({ units }) => count(units) },
    detailColumn,
  ];
  return (
    <Panel title="Tools" flush>
      <Table caption="Tools" columns={columns} rows={rows} keyOf={({ name }) => name} empty="No tools" />
    </Panel>
  );
}

export function Agents({ rows }: { readonly rows: CatalogueReport['agents'] }) {
  const columns: readonly Column<CatalogueReport['agents'][number]>[] = [
    nameColumn,
    { title: 'Description', cell: ({ description }) => <Foreign text={description} /> },
    detailColumn,
  ];
  return (
    <Panel title="Agents" flush>
      <Table caption="Agents" columns={columns} rows={rows} keyOf={({ name }) => name} empty="No agents" />
    </Panel>
  );
}

interface ToolServer {
  readonly name: string;
  readonly transport: string;
  readonly state: string;
  readonly problem: string | null;
  readonly read_at: string | null;
  readonly protocol: string | null;
  readonly breakers: Readonly<Record<string, string>>;
  readonly tools: readonly string[];
  readonly missing: readonly string[];
}

const REFRESH_MS = 5_000;

/** The upstream MCP servers with their health, as the node that answers sees them. */
export function Servers() {
  const servers = useResource(
    'servers',
    (signal) => request<{ servers: ToolServer[] }>('/v1/tool-servers', { signal }),
    { refreshMs: REFRESH_MS },
  );
  return (
    <Panel title="Tool servers" flush>
      <Loaded resource={servers}>
        {({ servers: rows }) => (
          <Table
            caption="Tool servers"
            columns={SERVERS}
            rows={rows}
            keyOf={({ name }) => name}
            empty="No tool server is configured"
            emptyHint="TOOL_SERVERS names the file with the upstream MCP servers."
          />
        )}
      </Loaded>
    </Panel>
  );
}

const SERVERS: readonly Column<ToolServer>[] = [
  { title: 'Server', cell: ({ name }) => <Foreign text={name} mono /> },
  {
    title: 'State',
    cell: ({ state, problem }) => (
      <>
        <Status value={state === 'failing' ? 'failed' : state} />
        {problem && (
          <div class="bad-text">
            <Foreign text={problem} />
          </div>
        )}
      </>
    ),
  },
  {
    title: 'Breaker of calls',
    cell: ({ breakers }) => <Status value={breakers.calls === 'open' ? 'failed' : breakers.calls} />,
  },
  { title: 'Transport', cell: ({ transport, protocol }) => `${transport}, ${protocol ?? 'not negotiated'}` },
  {
    title: 'Tools',
    kind: 'number',
    cell: ({ tools, missing }) => (
      <span title={missing.length > 0 ? `missing: ${missing.join(', ')}` : undefined}>
        {count(tools.length)}
        {missing.length > 0 && `, ${missing.length} missing`}
      </span>
    ),
  },
  { title: 'Last read', cell: ({ read_at }) => <Time at={read_at} /> },
];

function listOf(value: unknown): string {
  return Array.isArray(value) ? value.join(', ') : '';
}

function limitOf(value: unknown): string {
  return typeof value === 'number' ? count(value) : 'unlimited';
}
