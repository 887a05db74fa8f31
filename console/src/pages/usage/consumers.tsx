import { request } from '../../api/http.ts';
import type { Consumer, UsageWindow } from '../../api/types.ts';
import { count, plural } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { Badge } from '../../ui/badge.tsx';
import { Panel } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign, Time } from '../../ui/text.tsx';

const REFRESH_MS = 10_000;

interface Lagging extends Consumer {
  /** Records that the consumer has not confirmed; null if the head of the ledger is not known. */
  readonly lag: number | null;
}

export function Consumers() {
  const consumers = useResource('consumers', load, { refreshMs: REFRESH_MS });
  return (
    <Panel title="Consumers of the feed" flush>
      <Loaded resource={consumers}>
        {(rows) => (
          <Table
            caption="Consumers"
            columns={COLUMNS}
            rows={rows}
            keyOf={({ consumer }) => consumer}
            empty="No billing system has confirmed a position"
            emptyHint="PUT /v1/usage/cursors/{consumer} confirms one. Records after the lowest are never trimmed."
          />
        )}
      </Loaded>
    </Panel>
  );
}

async function load(signal: AbortSignal): Promise<readonly Lagging[]> {
  const [{ consumers }, { windows }] = await Promise.all([
    request<{ consumers: Consumer[] }>('/v1/usage/cursors', { signal }),
    request<{ windows: UsageWindow[] }>('/v1/usage/windows', { signal }),
  ]);
  const head = Math.max(0, ...windows.map(({ last_sequence }) => last_sequence ?? 0));
  return consumers.map((consumer) => ({ ...consumer, lag: head > 0 ? Math.max(0, head - consumer.sequence) : null }));
}

const COLUMNS: readonly Column<Lagging>[] = [
  { title: 'Consumer', cell: ({ consumer }) => <Foreign text={consumer} mono /> },
  { title: 'Service', cell: ({ service }) => <Foreign text={service} mono /> },
  { title: 'Confirmed up to', kind: 'number', cell: ({ sequence }) => count(sequence) },
  {
    title: 'Lag',
    kind: 'number',
    cell: ({ lag }) =>
      lag === 0 ? (
        <Badge tone="ok">none</Badge>
      ) : lag === null ? (
        '–'
      ) : (
        <Badge tone="warn">{plural(lag, 'record')}</Badge>
      ),
  },
  { title: 'Confirmed', cell: ({ confirmed_at }) => <Time at={confirmed_at} /> },
];
