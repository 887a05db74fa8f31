import { request } from '../../api/http.ts';
import type { TallyRow } from '../../api/types.ts';
import { csv } from '../../lib/csv.ts';
import { download } from '../../lib/download.ts';
import { count, duration } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { href, setQuery } from '../../lib/router.ts';
import { Chart } from '../../ui/chart.tsx';
import { Panel, Segments, Tile } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign } from '../../ui/text.tsx';
import { addHours, hourOf, sinceDays } from './periods.ts';

export interface BillProps {
  /** Columns of `group_by`, separated by commas. */
  readonly groups: string;
  readonly days: number;
  /** Only this user; empty for all. */
  readonly user: string;
}

const GROUPS = [
  { value: 'tool', title: 'Tool' },
  { value: 'user', title: 'User' },
  { value: 'plan', title: 'Plan' },
  { value: 'day', title: 'Day' },
  { value: 'user,tool', title: 'User and tool' },
];
const DAYS = [
  { value: '1', title: '24 hours' },
  { value: '7', title: '7 days' },
  { value: '30', title: '30 days' },
];
const DAY_LIKE = 2;

interface Report {
  readonly rows: readonly TallyRow[];
  readonly history: readonly TallyRow[];
  readonly from: string;
}

export function Bill({ groups, days, user }: BillProps) {
  const report = useResource(JSON.stringify([groups, days, user]), (signal) =>
    loadReport({ groups, days, user }, signal),
  );
  const change = (changed: Partial<Record<'by' | 'days' | 'user', string>>) => {
    setQuery({ by: groups, days: String(days), user, ...changed });
  };
  return (
    <>
      <div class="filters">
        <Segments label="Group by" options={GROUPS} value={groups} onChange={(by) => change({ by })} />
        <Segments label="Period" options={DAYS} value={String(days)} onChange={(value) => change({ days: value })} />
        <label class="field">
          <span>User id</span>
          <input
            class="input"
            type="search"
            defaultValue={user}
            placeholder="all users"
            dir="auto"
            onChange={(event) => change({ user: event.currentTarget.value.trim() })}
          />
        </label>
      </div>
      <Loaded resource={report}>{(data) => <ReportView report={data} groups={groups} days={days} />}</Loaded>
    </>
  );
}

async function loadReport({ groups, days, user }: BillProps, signal: AbortSignal): Promise<Report> {
  const from = sinceDays(days, Date.now());
  const read = (group_by: string) => {
    const query = { from, user_id: user, group_by };
    return request<{ tallies: TallyRow[] }>('/v1/usage/tallies', { query, signal });
  };
  const [grouped, history] = await Promise.all([read(groups), read(days > DAY_LIKE ? 'day' : 'hour')]);
  return { rows: grouped.tallies, history: history.tallies, from };
}

function ReportView({ report, groups, days }: { report: Report; groups: string; days: number }) {
  const { rows } = report;
  const sum = (of: (row: TallyRow) => number) => rows.reduce((total, row) => total + of(row), 0);
  const executions = sum((row) => row.executions);
  const columns = groups.split(',');
  return (
    <>
      <dl class="tiles">
        <Tile label="Units charged" value={count(sum((row) => row.units))} />
        <Tile label="Executions" value={count(executions)} note={`${count(sum((row) => row.failed))} failed`} />
        <Tile label="Refused, not charged" value={count(sum((row) => row.refusals))} />
        <Tile label="Corrections" value={count(sum((row) => row.corrections))} />
        <Tile
          label="Mean duration"
          value={executions > 0 ? duration(sum((row) => row.duration_ms) / executions) : '–'}
        />
      </dl>
      <UnitsChart report={report} days={days} />
      <Panel
        title="Bill"
        flush
        actions={
          <>
            <button type="button" class="button" data-size="small" onClick={() => saveCsv(rows, columns)}>
              CSV
            </button>
            <button type="button" class="button" data-size="small" onClick={() => saveNdjson(rows)}>
              NDJSON
            </button>
          </>
        }
      >
        <Table
          caption="Usage"
          columns={[...columns.map(groupColumn), ...FIGURES]}
          rows={rows.toSorted((one, other) => other.units - one.units)}
          keyOf={(row) => columns.map((name) => keyOf(row, name)).join('|')}
          empty="Nothing was used in this period"
        />
      </Panel>
    </>
  );
}

function UnitsChart({ report: { history, from }, days }: { readonly report: Report; readonly days: number }) {
  const perDay = days > DAY_LIKE;
  const steps = perDay ? days + 1 : days * 24 + 1;
  const at = Array.from({ length: steps }, (_, index) => addHours(from, perDay ? index * 24 : index));
  const byTime = new Map(history.map((row) => [perDay ? row.day : row.hour?.slice(0, 13), row]));
  const rowAt = (time: string) => byTime.get(time.slice(0, perDay ? 10 : 13));
  const lines = [{ name: 'units', values: at.map((time) => rowAt(time)?.units ?? 0) }];
  return (
    <Chart title={perDay ? 'Units per day, UTC' : 'Units per hour, UTC'} at={at} lines={lines} format={count} bars />
  );
}

function keyOf(row: TallyRow, name: string): string {
  return row[name as 'user' | 'tool' | 'plan' | 'day' | 'hour'] ?? '';
}

function groupColumn(name: string): Column<TallyRow> {
  return {
    title: name.charAt(0).toUpperCase() + name.slice(1),
    cell: (row) => {
      const value = keyOf(row, name);
      if (name !== 'user') return <Foreign text={value} mono />;
      return (
        <a href={href(['users', value])}>
          <Foreign text={value} mono />
        </a>
      );
    },
  };
}

const FIGURES: readonly Column<TallyRow>[] = [
  { title: 'Units', kind: 'number', cell: ({ units }) => count(units) },
  { title: 'Executions', kind: 'number', cell: ({ executions }) => count(executions) },
  { title: 'Failed', kind: 'number', cell: ({ failed }) => count(failed) },
  { title: 'Refused', kind: 'number', cell: ({ refusals }) => count(refusals) },
  { title: 'Corrections', kind: 'number', cell: ({ corrections }) => count(corrections) },
  {
    title: 'Mean duration',
    kind: 'number',
    cell: ({ executions, duration_ms }) => (executions > 0 ? duration(duration_ms / executions) : '–'),
  },
];

const FIGURE_NAMES = ['units', 'executions', 'succeeded', 'failed', 'cancelled', 'refusals', 'corrections'] as const;

function saveCsv(rows: readonly TallyRow[], columns: readonly string[]): void {
  const lines = rows.map((row) => [
    ...columns.map((name) => keyOf(row, name)),
    ...FIGURE_NAMES.map((name) => row[name]),
  ]);
  download(`tollgate-usage-${hourOf(Date.now())}.csv`, 'text/csv', [csv([...columns, ...FIGURE_NAMES], lines)]);
}

function saveNdjson(rows: readonly TallyRow[]): void {
  const lines = rows.map((row) => `${JSON.stringify(row)}\n`);
  download(`tollgate-usage-${hourOf(Date.now())}.ndjson`, 'application/x-ndjson', lines);
}
