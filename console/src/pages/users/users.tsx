import { request } from '../../api/http.ts';
import type { Paged, UserSummary } from '../../api/types.ts';
import { count } from '../../lib/format.ts';
import { href, type PageProps } from '../../lib/router.ts';
import { Badge } from '../../ui/badge.tsx';
import { FilterField, Filters } from '../../ui/filters.tsx';
import { More, usePages } from '../../ui/more.tsx';
import { Page, Panel, Tabs } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign } from '../../ui/text.tsx';
import { RefusedUsers } from './refused.tsx';
import { UserPage } from './user.tsx';

type UserList = Paged & { readonly users: readonly UserSummary[] };

export function Users({ route }: PageProps) {
  const [id] = route.rest;
  const filter = (name: string) => route.query.get(name) ?? '';
  if (id !== undefined) return <UserPage key={id} id={id} />;
  return (
    <Page
      title="Users"
      about="Everyone with an account, a connection or an event log. Open a user to see why requests are refused, and until when."
    >
      <Tabs
        label="Views"
        current={filter('view') || 'all'}
        tabs={[
          { id: 'all', title: 'Search', href: href('users') },
          { id: 'refused', title: 'Refused lately', href: href('users', { view: 'refused' }) },
        ]}
      />
      {filter('view') === 'refused' ? <RefusedUsers code={filter('code')} /> : <Search query={filter('query')} />}
    </Page>
  );
}

function Search({ query }: { readonly query: string }) {
  const users = usePages(
    query,
    (cursor, signal) => request<UserList>('/v1/admin/users', { query: { query, cursor }, signal }),
    (page) => page.users,
  );
  return (
    <>
      <Filters submit="Search">
        <FilterField label="User id, or a part of it" name="query" value={query} wide />
        {query !== '' && (
          <a class="button" href={href(['users', query])}>
            Open this id
          </a>
        )}
      </Filters>
      <Panel title="Users" flush>
        <Loaded resource={users}>
          {(rows) => (
            <Table
              caption="Users"
              columns={COLUMNS}
              rows={rows}
              keyOf={({ user_id }) => user_id}
              empty={users.more ? 'No match in this part' : 'No user matches'}
              emptyHint={
                users.more
                  ? 'The search reads a bounded part at a time. Show more to continue.'
                  : 'The search looks at user ids, not at e-mail addresses. A user appears here with the first connection, run or account change.'
              }
            />
          )}
        </Loaded>
        <More list={users} />
      </Panel>
    </>
  );
}

const COLUMNS: readonly Column<UserSummary>[] = [
  {
    title: 'User',
    cell: ({ user_id }) => (
      <a href={href(['users', user_id])}>
        <Foreign text={user_id} mono />
      </a>
    ),
  },
  { title: 'E-mail', cell: ({ email }) => <Foreign text={email} /> },
  { title: 'Plan', cell: ({ plan }) => <Foreign text={plan} /> },
  {
    title: 'Account',
    cell: ({ blocked }) => (blocked ? <Badge tone="bad">blocked</Badge> : <Badge tone="ok">active</Badge>),
  },
  { title: 'Connections', kind: 'number', cell: ({ connections }) => count(connections) },
];
