import { path, request } from '../../api/http.ts';
import type { UserDetail } from '../../api/types.ts';
import { plural } from '../../lib/format.ts';
import { Action } from '../../ui/action.tsx';
import { PlanField } from './plan-field.tsx';

interface UserActionsProps {
  readonly user: UserDetail;
  readonly onDone: () => void;
}

/** What an administrator can do to a user. Each action says what it changes before, and what it has changed after. */
export function UserActions({ user, onDone }: UserActionsProps) {
  const { user_id: id, account, connections_total } = user;
  return (
    <>
      <Action
        label="Change plan"
        title="Change the plan"
        consequence="It takes precedence over the token, and applies to open connections at once."
        fields={<PlanField current={user.plan} />}
        run={async (form) => {
          const plan = String(form.get('plan'));
          await request(path`/v1/users/${id}/plan`, { method: 'PUT', body: { plan } });
          return `The plan is now ${plan}.`;
        }}
        onDone={onDone}
      />
      <Notice id={id} />
      <Action
        label="Disconnect"
        kind="danger"
        title="Close all connections"
        consequence={`${plural(connections_total, 'connection')} with CONNECTION_CLOSED. The user may connect again.`}
        run={async () => {
          const target = path`/v1/users/${id}/connections`;
          const { closed } = await request<{ closed: string[] }>(target, { method: 'DELETE' });
          return `${plural(closed.length, 'connection')} closed.`;
        }}
        onDone={onDone}
      />
      <Action
        label="Revoke tokens"
        kind="danger"
        title="Revoke all tokens"
        consequence="Every token that was issued until now is refused, on open connections too. A new sign-in helps."
        run={async () => {
          await request('/v1/tokens/revoke', { method: 'POST', body: { user_id: id } });
          return 'All tokens that existed are revoked.';
        }}
        onDone={onDone}
      />
      {account.blocked ? (
        <Action
          label="Unblock"
          title="Unblock the user"
          consequence="The user may connect again."
          run={async () => {
            await request(path`/v1/users/${id}/unblock`, { method: 'POST' });
            return 'The user is no longer blocked.';
          }}
          onDone={onDone}
        />
      ) : (
        <Action
          label="Block"
          kind="danger"
          title="Block the user"
          consequence="Closes all connections with USER_BLOCKED, and refuses new ones on every node."
          run={async () => {
            await request(path`/v1/users/${id}/block`, { method: 'POST' });
            return 'The user is blocked.';
          }}
          onDone={onDone}
        />
      )}
    </>
  );
}

/** A message for the connections of the user, of a type that the application chooses. */
function Notice({ id }: { readonly id: string }) {
  return (
    <Action
      label="Publish notice"
      title="Publish a notice"
      consequence="All connections of the user receive it, as a message of its own type."
      confirm="Publish"
      fields={
        <>
          <label class="field">
            <span>Type</span>
            <input class="input mono" name="type" required pattern="[a-z][a-z0-9_.]*" defaultValue="operator.notice" />
          </label>
          <label class="field">
            <span>Text</span>
            <textarea class="input" name="text" rows={3} required dir="auto" />
          </label>
          <label>
            <input type="checkbox" name="durable" /> Keep it in the event log, for clients that connect later
          </label>
        </>
      }
      run={async (form) => {
        const body = {
          type: String(form.get('type')),
          fields: { text: String(form.get('text')) },
          durable: form.has('durable'),
        };
        const answer = await request<{ nodes?: number; seq?: number }>(path`/v1/users/${id}/events`, {
          method: 'POST',
          body,
        });
        if (answer.seq !== undefined) return `In the event log with seq ${answer.seq}.`;
        return answer.nodes === 0 ? 'No node serves the user: nobody received it.' : 'Published.';
      }}
    />
  );
}
