import type { RefusalReason, UserDetail } from '../../api/types.ts';
import { Time } from '../../ui/text.tsx';

/** Whether the gateway refuses this user now, why, and until when: by the code that the client sees. */
export function Reasons({ user: { refused, refusals, plan, limits } }: { readonly user: UserDetail }) {
  if (refused.length > 0) {
    return (
      <ul class="stack tight" aria-label="Reasons for refusals">
        {refused.map((reason) => (
          <li key={`${reason.code} ${reason.because}`} class="notice" data-tone={reason.all ? 'bad' : 'warn'}>
            <Sentence reason={reason} />
          </li>
        ))}
      </ul>
    );
  }
  const [last] = refusals;
  const cap = limits.find(({ name }) => name === 'connections');
  return (
    <div class="notice" data-tone="ok">
      <div>
        <strong>Not refused now.</strong> The user is not blocked
        {plan === null ? ', and the plan is not known yet.' : ', and no limit refuses a request.'}
        {cap?.reached && (
          <>
            {' '}
            All {cap.limit} connections that the plan allows are open: a further one closes the oldest with{' '}
            <code>{cap.code}</code>.
          </>
        )}
        {last && (
          <>
            {' '}
            The last refusal was <code>{last.code}</code>, <Time at={last.at} />.
          </>
        )}
      </div>
    </div>
  );
}

function Sentence({ reason: { code, because, until, remedy, all } }: { readonly reason: RefusalReason }) {
  return (
    <div>
      <strong>{all ? 'Refused' : 'Partly refused'}</strong> because {because}
      {until ? (
        <>
          , until{' '}
          <strong>
            <Time at={until} exact />
          </strong>{' '}
          (<Time at={until} />)
        </>
      ) : (
        code === 'USER_BLOCKED' && ', until the user is unblocked'
      )}
      . <span class="muted">{remedy}</span> <code>{code}</code>
    </div>
  );
}
