import { request } from '../../api/http.ts';
import type { Paged, RecordPage, UsageRecord } from '../../api/types.ts';
import { count, duration, plural } from '../../lib/format.ts';
import { href, setQuery } from '../../lib/router.ts';
import { Status } from '../../ui/badge.tsx';
import { FilterField, Filters, TimeField } from '../../ui/filters.tsx';
import { More, usePages } from '../../ui/more.tsx';
import { Panel, Segments } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign, Time } from '../../ui/text.tsx';
import { Correction } from './correction.tsx';

const ORDERS = [
  { value: 'desc', title: 'Newest first' },
  { value: 'asc', title: 'Oldest first' },
] as const;

interface RecordsProps {
  readonly user: string;
  readonly tool: string;
  /** Times of completion, in the zone of the browser and the form of `datetime-local`; empty for no bound. */
  readonly from: string;
  readonly to: string;
  readonly order: 'asc' | 'desc';
  /** Id of a record to mark. */
  readonly record: string;
}

export function Records({ user, tool, from, to, order, record }: RecordsProps) {
  const records = usePages(
    JSON.stringify([user, tool, from, to, order]),
    async (cursor, signal): Promise<Paged & RecordPage> => {
      const query = { user_id: user, tool, from: utcOf(from), to: utcOf(to), order, cursor, limit: 100 };
      const page = await request<RecordPage>('/v1/usage/records', { query, signal });
      return { ...page, next_cursor: page.has_more ? page.next_cursor : (null as never) };
    },
    (page) => page.records,
  );
  return (
    <>
      <Filters>
        <FilterField label="User id" name="user" value={user} />
        <FilterField label="Tool" name="tool" value={tool} />
        <TimeField label="Completed from" name="from" value={from} />
        <TimeField label="Completed before" name="to" value={to} />
        <input type="hidden" name="order" value={order} />
      </Filters>
      <Panel
        title="Records"
        flush
        actions={
          <>
            {records.data && <Shown records={records.data} />}
            <Segments
              label="Order"
              options={ORDERS}
              value={order}
              onChange={(value) => setQuery({ user, tool, from, to, record, order: value })}
            />
          </>
        }
      >
        <Loaded resource={records}>
          {(rows) => (
            <Table
              caption="Usage records"
              columns={columnsOf(record, () => void records.reload())}
              rows={rows}
              keyOf={({ id }) => id}
              empty={records.more ? 'No match in this part' : 'No record matches'}
              emptyHint={records.more && 'A page reads 10,000 records. Show more to continue.'}
            />
          )}
        </Loaded>
        <More list={records} />
      </Panel>
    </>
  );
}

/** The text of an input as a time; undefined without one. */
function utcOf(local: string): string | undefined {
  const at = new Date(local);
  return Number.isNaN(at.getTime()) ? undefined : at.toISOString();
}

/** The sum of the list, which is that of the filter once all of its records are shown. */
function Shown({ records }: { readonly records: readonly UsageRecord[] }) {
  const units = records.reduce((total, record) => total + record.units, 0);
  return (
    <span class="muted small">
      {plural(units, 'unit')} in the {plural(records.length, 'record')} shown
    </span>
  );
}

function columnsOf(marked: string, reload: () => void): readonly Column<UsageRecord>[] {
  return [
    {
      title: 'Sequence',
      cell: ({ sequence, id }) => (
        <span title={id} class={id === marked ? 'marked' : undefined}>
          {count(sequence)}
        </span>
      ),
    },
    { title: 'Completed', cell: ({ completed_at }) => <Time at={completed_at} exact /> },
    {
      title: 'User',
      cell: ({ user_id }) => (
        <a href={href(['users', user_id])}>
          <Foreign text={user_id} mono />
        </a>
      ),
    },
    { title: 'Tool', cell: ({ tool }) => <Foreign text={tool} mono /> },
    { title: 'Units', kind: 'number', cell: ({ units }) => count(units) },
    {
      title: 'Status',
      cell: ({ status, corrects, reason }) =>
        corrects ? (
          <span title={corrects}>
            correction: <Foreign text={reason} />
          </span>
        ) : (
          <Status value={status} />
        ),
    },
    { title: 'Duration', kind: 'number', cell: ({ duration_ms }) => duration(duration_ms) },
    {
      title: 'Run',
      cell: ({ run_id, user_id }) =>
        run_id ? (
          <a href={href(['runs', user_id, run_id])}>
            <Foreign text={run_id} mono />
          </a>
        ) : (
          'none'
        ),
    },
    { title: 'Hash', cell: ({ hash }) => <code title={hash}>{hash.slice(0, 10)}…</code> },
    {
      title: 'Actions',
      kind: 'actions',
      cell: (record) => (record.corrects ? null : <Correction record={record} onDone={reload} />),
    },
  ];
}
