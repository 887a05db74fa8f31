import { useState } from 'preact/hooks';
import { request, send } from '../../api/http.ts';
import type { UsageWindow } from '../../api/types.ts';
import { download } from '../../lib/download.ts';
import { count } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { Badge, Status } from '../../ui/badge.tsx';
import { Panel, Segments } from '../../ui/page.tsx';
import { Loaded, messageOf } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Time } from '../../ui/text.tsx';
import { report } from '../../ui/toasts.tsx';
import { sinceDays } from './periods.ts';
import { Verify } from './verify.tsx';

const DAYS = [
  { value: '1', title: '24 hours' },
  { value: '7', title: '7 days' },
  { value: '30', title: '30 days' },
];
const FORMATS = ['stripe', 'openmeter', 'lago', 'cloudevents'];
const HASH_SHOWN = 16;

export function Windows() {
  const [days, setDays] = useState('1');
  const windows = useResource(days, (signal) => {
    const query = { from: sinceDays(Number(days), Date.now()) };
    return request<{ windows: UsageWindow[] }>('/v1/usage/windows', { query, signal });
  });
  return (
    <>
      <Segments label="Period" options={DAYS} value={days} onChange={setDays} />
      <Loaded resource={windows}>
        {({ windows: all }) => (
          <>
            <Verify key={days} windows={all} />
            <Panel title="Windows" flush>
              <Table
                caption="Windows"
                columns={COLUMNS}
                rows={all.toReversed()}
                keyOf={({ window, revision }) => `${window} ${revision}`}
                empty="No record in this period"
              />
            </Panel>
          </>
        )}
      </Loaded>
    </>
  );
}

const COLUMNS: readonly Column<UsageWindow>[] = [
  { title: 'Window, UTC', cell: ({ window }) => <span class="mono">{window}</span> },
  { title: 'Revision', kind: 'number', cell: ({ revision }) => revision },
  { title: 'State', cell: ({ status }) => <WindowStatus status={status} /> },
  { title: 'Records', kind: 'number', cell: ({ record_count }) => count(record_count) },
  { title: 'Units', kind: 'number', cell: ({ totals }) => count(totals.units) },
  {
    title: 'SHA-256',
    cell: ({ sha256 }) => (sha256 ? <code title={sha256}>{sha256.slice(0, HASH_SHOWN)}…</code> : 'when closed'),
  },
  { title: 'Closed', cell: ({ closed_at }) => <Time at={closed_at} /> },
  { title: 'Export', kind: 'actions', cell: (row) => <Export row={row} /> },
];

function WindowStatus({ status }: { readonly status: string }) {
  return status === 'closed' ? <Badge tone="ok">closed</Badge> : <Status value={status} />;
}

/** A closed window in the form of a billing system. An open one still changes. */
function Export({ row: { window, revision, status } }: { readonly row: UsageWindow }) {
  if (status !== 'closed') return <span class="muted">–</span>;
  const save = async (format: string) => {
    try {
      const response = await send('/v1/usage/export', { query: { format, window, revision } });
      const type = response.headers.get('content-type') ?? 'application/json';
      download(`tollgate-${format}-${window}-r${revision}.json`, type, [await response.blob()]);
    } catch (error) {
      report(messageOf(error), 'bad');
    }
  };
  return (
    <select
      class="input export"
      aria-label={`Export window ${window}`}
      value=""
      onChange={(event) => {
        const format = event.currentTarget.value;
        event.currentTarget.value = '';
        if (format !== '') void save(format);
      }}
    >
      <option value="">Export …</option>
      {FORMATS.map((format) => (
        <option key={format}>{format}</option>
      ))}
    </select>
  );
}
