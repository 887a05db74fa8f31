import { useState } from 'preact/hooks';
import type { Refusal, UserLimit } from '../../api/types.ts';
import { count, plural } from '../../lib/format.ts';
import { Badge } from '../../ui/badge.tsx';
import { Panel } from '../../ui/page.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign, Time } from '../../ui/text.tsx';

/** Shown although they are not used. */
const OF_EVERY_USER = new Set(['messages_per_minute', 'connections', 'runs_in_flight', 'runs_per_hour']);

/** The limits of a user that are used, the fullest first, and the others on request. */
export function Limits({ limits }: { readonly limits: readonly UserLimit[] }) {
  const [all, setAll] = useState(false);
  const shown = all ? limits : limits.filter(({ name, used }) => used > 0 || OF_EVERY_USER.has(name));
  const rest = limits.length - shown.length;
  return (
    <Panel title="Limits" flush>
      <Table
        caption="Limits"
        columns={LIMITS}
        rows={shown}
        keyOf={({ name }) => name}
        empty="The plan of the user is not known yet"
      />
      {rest > 0 && (
        <div class="panel-foot">
          <button type="button" class="button" onClick={() => setAll(true)}>
            Show {plural(rest, 'unused limit')}
          </button>
        </div>
      )}
    </Panel>
  );
}

const LIMITS: readonly Column<UserLimit>[] = [
  {
    title: 'Limit',
    cell: ({ name, refuses }) => (
      <span title={`Above it: ${refuses}`}>
        <Foreign text={name.replaceAll('_', ' ')} />
      </span>
    ),
  },
  {
    title: 'Used',
    kind: 'number',
    cell: ({ name, used, limit, reached }) => (
      <>
        {reached && (
          <>
            <Badge tone={name === 'connections' ? 'warn' : 'bad'}>reached</Badge>{' '}
          </>
        )}
        {limit === 0 ? 'not in the plan' : `${count(used)} of ${count(limit)}`}
        {limit > 0 && (
          <progress
            max={limit}
            value={Math.min(used, limit)}
            data-tone={reached && name !== 'connections' ? 'bad' : undefined}
            aria-label={`${name}, used`}
          />
        )}
      </>
    ),
  },
  { title: 'Resets', cell: ({ ends_at }) => <Time at={ends_at} exact /> },
];

/** The latest refusals of a user. */
export function RefusalList({ refusals }: { readonly refusals: readonly Refusal[] }) {
  return (
    <Panel title="Latest refusals" flush>
      <Table
        caption="Refusals"
        columns={REFUSALS}
        rows={refusals}
        keyOf={({ code, at, text }) => `${code} ${at} ${text}`}
        empty="No refusal in the last 24 hours"
      />
    </Panel>
  );
}

const REFUSALS: readonly Column<Refusal>[] = [
  { title: 'Code', cell: ({ code }) => <code>{code}</code> },
  { title: 'Last', kind: 'nowrap', cell: ({ at }) => <Time at={at} exact /> },
  { title: 'Times', kind: 'number', cell: ({ count: times }) => count(times) },
  { title: 'Text of the error', cell: ({ text }) => <Foreign text={text} /> },
];
