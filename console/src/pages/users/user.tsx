import { path, request } from '../../api/http.ts';
import type { RunSummary, UserConnection, UserDetail } from '../../api/types.ts';
import { count, plural } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { href } from '../../lib/router.ts';
import { Action } from '../../ui/action.tsx';
import { Badge, Status } from '../../ui/badge.tsx';
import { Page, Panel, Tile } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign, Time } from '../../ui/text.tsx';
import { Limits, RefusalList } from './limits.tsx';
import { Reasons } from './reasons.tsx';
import { UserActions } from './user-actions.tsx';

const REFRESH_MS = 4_000;

export function UserPage({ id }: { readonly id: string }) {
  const user = useResource(id, (signal) => request<UserDetail>(path`/v1/admin/users/${id}`, { signal }), {
    refreshMs: REFRESH_MS,
  });
  const reload = () => void user.reload();
  return (
    <Page
      title={id}
      parent={{ title: 'Users', href: href('users') }}
      actions={user.data && <UserActions user={user.data} onDone={reload} />}
    >
      <Loaded resource={user}>{(detail) => <Detail user={detail} onChange={reload} />}</Loaded>
    </Page>
  );
}

function Detail({ user, onChange }: { readonly user: UserDetail; readonly onChange: () => void }) {
  const { account, connections_total, event_log, threads, usage } = user;
  return (
    <>
      <Reasons user={user} />
      <dl class="tiles">
        <Tile
          label="Account"
          value={<Status value={account.blocked ? 'blocked' : 'active'} />}
          note={
            account.revoked_before ? (
              <>
                tokens before <Time at={account.revoked_before} exact /> are revoked
              </>
            ) : (
              user.email && <Foreign text={user.email} />
            )
          }
        />
        <Tile
          label="Plan"
          value={user.plan ? <bdi>{user.plan}</bdi> : 'not known'}
          note={account.plan ? 'stored by an administrator' : user.plan ? 'from the token' : 'until the user connects'}
        />
        <Tile label="Connections" value={count(connections_total)} />
        <Tile
          label="Charged today"
          value={usage ? plural(usage.today.units, 'unit') : '–'}
          note={usage && `${plural(usage.today.calls, 'call')}, ${plural(usage.this_month.units, 'unit')} this month`}
        />
        <Tile
          label="Runs in flight"
          value={usage ? count(usage.runs.in_flight.runs) : '–'}
          note={usage && `of ${usage.runs.in_flight.limit ?? 'unlimited'}`}
        />
        <Tile
          label="Event log, last seq"
          value={count(event_log.seq)}
          note={`${plural(threads, 'thread')}, ${event_log.epoch ?? 'no epoch'}`}
        />
      </dl>
      <p>
        <a href={href(['usage', 'records'], { user: user.user_id })}>What this user was charged for</a>, call by call
        {' · '}
        <a href={href('usage', { by: 'tool', days: '1', user: user.user_id })}>Sums of the last 24 hours</a>, tool by
        tool
      </p>
      {user.refusals.length > 0 && <RefusalList refusals={user.refusals} />}
      <Panel title="Connections" flush>
        <Table
          caption="Connections"
          columns={connectionColumns(user.user_id, onChange)}
          rows={user.connections}
          keyOf={({ connection_id }) => connection_id}
          empty="Not connected"
        />
      </Panel>
      <div class="columns">
        <Limits limits={user.limits} />
        <Panel title="Latest runs" flush actions={<a href={href('runs', { user: user.user_id })}>All runs</a>}>
          <Table
            caption="Runs"
            columns={runColumns(user.user_id)}
            rows={user.runs}
            keyOf={({ run_id }) => run_id}
            empty="No runs in the last 24 hours"
          />
        </Panel>
      </div>
    </>
  );
}

function connectionColumns(userId: string, onChange: () => void): readonly Column<UserConnection>[] {
  return [
    { title: 'Connection', cell: ({ connection_id }) => <Foreign text={connection_id} mono /> },
    { title: 'Endpoint', cell: ({ endpoint }) => <Foreign text={endpoint} mono /> },
    { title: 'Node', cell: ({ node }) => <Foreign text={node} mono /> },
    { title: 'Session', cell: ({ session_id }) => <Foreign text={session_id} mono /> },
    { title: 'Open since', cell: ({ opened_at }) => <Time at={opened_at} /> },
    { title: 'Lease ends', cell: ({ lease_ends_at }) => <Time at={lease_ends_at} /> },
    {
      title: 'Actions',
      kind: 'actions',
      cell: ({ connection_id, session_id }) => (
        <div class="row">
          <Action
            label="Close"
            kind="danger"
            small
            title={`Close ${connection_id}`}
            consequence="The client gets CONNECTION_CLOSED. It may connect again."
            run={async () => {
              const target = path`/v1/users/${userId}/connections/${connection_id}`;
              const { closed } = await request<{ closed: string[] }>(target, { method: 'DELETE' });
              return `${plural(closed.length, 'connection')} closed.`;
            }}
            onDone={onChange}
          />
          {session_id && (
            <Action
              label="Revoke session"
              kind="danger"
              small
              title={`Revoke the session ${session_id}`}
              consequence="Closes all of its connections, and refuses its tokens. The user has to sign in again."
              run={async () => {
                await request('/v1/tokens/revoke', { method: 'POST', body: { sid: session_id } });
                return 'The session is revoked.';
              }}
              onDone={onChange}
            />
          )}
        </div>
      ),
    },
  ];
}

function runColumns(userId: string): readonly Column<RunSummary>[] {
  return [
    {
      title: 'Run',
      cell: ({ run_id }) => (
        <a href={href(['runs', userId, run_id])}>
          <Foreign text={run_id} mono />
        </a>
      ),
    },
    { title: 'Status', cell: ({ status }) => <Status value={status} /> },
    { title: 'Agent', cell: ({ agent }) => (agent ? <Foreign text={agent} /> : <Badge plain>default</Badge>) },
    { title: 'Accepted', cell: ({ accepted_at }) => <Time at={accepted_at} /> },
  ];
}
