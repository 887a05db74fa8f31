import type { ComponentChildren } from 'preact';
import type { UserDetail } from '../../api/types.ts';
import { Time } from '../../ui/text.tsx';

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
        <span>Nothing that is stored refuses this user now.</span>
      </div>
    );
  }
  return (
    <ul class="stack tight" aria-label="Reasons for refusals">
      {reasons.map(({ code, text }) => (
        <li key={code} class="notice" data-tone={code === 'USER_BLOCKED' ? 'bad' : 'warn'}>
          <div>
            <code>{code}</code> {text}
          </div>
        </li>
      ))}
    </ul>
  );
}

function reasonsOf({ account, messages, connections_total, connection_cap, quotas }: UserDetail): Reason[] {
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
  if (messages.limit !== null && messages.used >= messages.limit) {
    const text = (
      <>
        The message limit of this minute is reached. It resets <Time at={messages.resets_at} />.
      </>
    );
    reasons.push({ code: 'RATE_LIMITED', text });
  }
  if (connections_total >= connection_cap) {
    const text = 'The connection cap is reached: a further connection closes the oldest one.';
    reasons.push({ code: 'CONNECTION_LIMIT_EXCEEDED', text });
  }
  const used = quotas.filter(({ limit, used }) => limit !== null && used >= limit).map(({ name }) => name);
  if (used.length > 0) {
    reasons.push({ code: 'QUOTA_EXCEEDED', text: <bdi>Used up: {used.join(', ')}.</bdi> });
  }
  return reasons;
}
