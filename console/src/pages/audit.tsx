import { request } from '../api/http.ts';
import type { AuditEntry, Paged } from '../api/types.ts';
import { href, type PageProps } from '../lib/router.ts';
import { Badge } from '../ui/badge.tsx';
import { FilterField, Filters } from '../ui/filters.tsx';
import { More, usePages } from '../ui/more.tsx';
import { Page, Panel } from '../ui/page.tsx';
import { Loaded } from '../ui/state.tsx';
import { type Column, Table } from '../ui/table.tsx';
import { Foreign, Time } from '../ui/text.tsx';

type AuditPage = Paged & { readonly entries: readonly AuditEntry[] };
const FIRST_ERROR_STATUS = 400;

export function Audit({ route }: PageProps) {
  const actor = route.query.get('actor') ?? '';
  const action = route.query.get('action') ?? '';
  const entries = usePages(
    JSON.stringify([actor, action]),
    (cursor, signal) => request<AuditPage>('/v1/audit', { query: { actor, action, cursor }, signal }),
    (page) => page.entries,
  );
  return (
    <Page
      title="Audit"
      about="Every change through the admin API, refused ones too: who, what, whom, from where."
      actions={
        <button type="button" class="button" onClick={() => void entries.reload()}>
          Refresh
        </button>
      }
    >
      <Filters>
        <FilterField label="Actor" name="actor" value={actor} placeholder="user:… or a service" />
        <FilterField label="Action" name="action" value={action} placeholder="blockUser" />
      </Filters>
      <Panel title="Entries" flush>
        <Loaded resource={entries}>
          {(rows) => (
            <Table
              caption="Audit log"
              columns={COLUMNS}
              rows={rows}
              keyOf={({ id }) => id}
              empty="No entry matches"
              emptyHint="The log keeps the latest 50,000 entries of 90 days."
            />
          )}
        </Loaded>
        <More list={entries} />
      </Panel>
    </Page>
  );
}

const COLUMNS: readonly Column<AuditEntry>[] = [
  { title: 'Time', cell: ({ at }) => <Time at={at} exact /> },
  { title: 'Actor', cell: ({ actor }) => <Foreign text={actor} mono /> },
  { title: 'Action', cell: ({ action }) => <span class="mono">{action}</span> },
  { title: 'Target', cell: ({ target }) => <Target target={target} /> },
  {
    title: 'Outcome',
    cell: ({ status, error }) => (
      <Badge tone={status < FIRST_ERROR_STATUS ? 'ok' : 'bad'}>{error ?? `HTTP ${status}`}</Badge>
    ),
  },
  {
    title: 'From',
    cell: ({ from, user_agent }) => (
      <span title={user_agent ?? undefined}>
        <Foreign text={from} mono />
      </span>
    ),
  },
];

function Target({ target }: Pick<AuditEntry, 'target'>) {
  const entries = Object.entries(target ?? {});
  if (entries.length === 0) return <>–</>;
  return (
    <>
      {entries.map(([name, value]) => (
        <div key={name}>
          <span class="muted">{name} </span>
          {name === 'user_id' ? (
            <a href={href(['users', value])}>
              <Foreign text={value} mono />
            </a>
          ) : (
            <Foreign text={String(value)} mono />
          )}
        </div>
      ))}
    </>
  );
}
