import { path, request } from '../../api/http.ts';
import { canWrite } from '../../session/session.ts';
import { Badge, Status } from '../../ui/badge.tsx';
import { Foreign, Time } from '../../ui/text.tsx';
import { report } from '../../ui/toasts.tsx';
import type { PlaygroundController } from './controller.ts';

const PLANS = ['free', 'pro', 'enterprise', 'developer'];

export function ConnectionBar({ controller }: { readonly controller: PlaygroundController }) {
  const identity = controller.identity.value;
  const welcome = controller.welcome.value;
  const problem = controller.problem.value;
  const state = controller.state.value;
  return (
    <div class="connection-bar">
      <span data-testid="connection">
        <Status value={state} />
      </span>
      {identity && (
        <>
          <span>
            <span class="muted">User </span>
            <Foreign text={identity.userId} mono />
          </span>
          <PlanChoice userId={identity.userId} plan={identity.plan} />
          <span>
            <span class="muted">Node </span>
            <Foreign text={textOf(welcome.server_id)} mono />
          </span>
          <span>
            <span class="muted">Connection </span>
            <Foreign text={textOf(welcome.connection_id)} mono />
          </span>
          <span>
            <span class="muted">Token expires </span>
            <Time at={textOf(welcome.token_expires_at)} />
          </span>
        </>
      )}
      {state !== 'connected' && problem && (
        <span class="wrap">
          <Badge tone="bad">{problem.code}</Badge> {problem.message}
        </span>
      )}
      {state === 'stopped' && (
        <button type="button" class="button" data-size="small" onClick={() => controller.connect()}>
          Connect again
        </button>
      )}
    </div>
  );
}

/** An administrator can try another plan: it applies to the open connection at once. */
function PlanChoice({ userId, plan }: { readonly userId: string; readonly plan: string }) {
  if (!canWrite.value) {
    return (
      <span>
        <span class="muted">Plan </span>
        {plan}
      </span>
    );
  }
  const change = async (next: string) => {
    try {
      await request(path`/v1/users/${userId}/plan`, { method: 'PUT', body: { plan: next } });
    } catch (error) {
      report(error instanceof Error ? error.message : String(error), 'bad');
    }
  };
  const known = PLANS.includes(plan) ? PLANS : [plan, ...PLANS];
  return (
    <label class="row">
      <span class="muted">Plan</span>
      <select class="input plan-select" value={plan} onChange={(event) => void change(event.currentTarget.value)}>
        {known.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
