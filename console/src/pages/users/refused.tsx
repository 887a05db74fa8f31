import { request } from '../../api/http.ts';
import type { RefusedUser } from '../../api/types.ts';
import { count } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { href } from '../../lib/router.ts';
import { Badge } from '../../ui/badge.tsx';
import { Panel } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign, Time } from '../../ui/text.tsx';

const REFRESH_MS = 5_000;
const SHOWN = 200;

/** The users that were refused in the last day, the latest first. */
export function RefusedUsers({ code }: { readonly code: string }) {
  const refused = useResource(
    code,
    (signal) => {
      const query = { code, limit: SHOWN };
      return request<{ users: RefusedUser[] }>('/v1/admin/refused-users', { query, signal });
    },
    { refreshMs: REFRESH_MS },
  );
  return (
    <Panel
      title={code === '' ? 'Refused lately' : `Refused lately with ${code}`}
      flush
      actions={code !== '' && <a href={href('users', { view: 'refused' })}>All codes</a>}
    >
      <Loaded resource={refused}>
        {({ users }) => (
          <Table
            caption="Refused users"
            columns={COLUMNS}
            rows={users}
            keyOf={({ user_id }) => user_id}
            empty="No known user was refused lately"
            emptyHint="A refusal shows here within some seconds. Handshakes without a valid token have no user: they are in the figures of the overview only."
          />
        )}
      </Loaded>
    </Panel>
  );
}

const COLUMNS: readonly Column<RefusedUser>[] = [
  {
    title: 'User',
    cell: ({ user_id }) => (
      <a href={href(['users', user_id])}>
        <Foreign text={user_id} mono />
      </a>
    ),
  },
  {
    title: 'Codes',
    cell: ({ codes }) => (
      <div class="row">
        {codes.map((one) => (
          <a key={one.code} href={href('users', { view: 'refused', code: one.code })}>
            <Badge plain>
              <span class="mono">{one.code}</span> × {count(one.count)}
            </Badge>
          </a>
        ))}
      </div>
    ),
  },
  { title: 'Refusals', kind: 'number', cell: ({ count: times }) => count(times) },
  { title: 'Last', cell: ({ last_at }) => <Time at={last_at} /> },
];
