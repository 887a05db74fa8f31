import type { ComponentChildren } from 'preact';
import type { UserDetail } from '../../api/types.ts';
import { count, plural } from '../../lib/format.ts';
import { Time } from '../../ui/text.tsx';
import { isReached, limitsOf } from './limits.ts';

interface Reason {
  readonly code: string;
  readonly text: ComponentChildren;
}

/** Why the gateway refuses this user now, by the code that the client sees. */
export function Reasons({ user }: { readonly user: UserDetail }) {
  const reasons = reasonsOf(user);
  if (reasons.length === 0) {
    return (
      <div class="notice" data-tone="ok">
        <div>
          No block, revoked token or used-up limit below refuses this user now. The message limit is not shown: a client
          above its messages per minute gets <code>RATE_LIMITED</code>, and can send again within a minute.
        </div>
      </div>
    );
  }
  return (
    <ul class="stack tight" aria-label="Reasons for refusals">
      {reasons.map(({ code, text }, index) => (
        <li key={`${code} ${index}`} class="notice" data-tone={code === 'USER_BLOCKED' ? 'bad' : 'warn'}>
          <div>
            <code>{code}</code> {text}
          </div>
        </li>
      ))}
    </ul>
  );
}

function reasonsOf({ account, usage }: UserDetail): Reason[] {
  const reasons: Reason[] = [];
  if (account.blocked) {
    reasons.push({
      code: 'USER_BLOCKED',
      text: 'An administrator has blocked the user: every connection and request.',
    });
  }
  if (account.revoked_before) {
    const text = (
      <>
        Tokens that were issued before <Time at={account.revoked_before} exact /> are refused. A new sign-in helps.
      </>
    );
    reasons.push({ code: 'TOKEN_REVOKED', text });
  }
  if (!usage) return reasons;
  const { runs, limit } = usage.runs.in_flight;
  if (limit !== null && runs >= limit) {
    reasons.push({ code: 'RATE_LIMITED', text: `${plural(runs, 'run')} are in flight, as many as the plan allows.` });
  }
  for (const { name, used, resets_at } of limitsOf(usage).filter(isReached)) {
    const text = (
      <>
        <code>{name}</code> is used up ({count(used)}).
        {resets_at && (
          <>
            {' '}
            It resets at <Time at={resets_at} exact /> (<Time at={resets_at} />
            ).
          </>
        )}
      </>
    );
    reasons.push({ code: isQuota(name) ? 'QUOTA_EXCEEDED' : 'RATE_LIMITED', text });
  }
  return reasons;
}

/** The gateway answers a used-up allowance of the plan with another code than a limit that a retry soon passes. */
function isQuota(name: string): boolean {
  return name === 'runs_per_hour' || name.endsWith('_per_day');
}
