import { useState } from 'preact/hooks';
import { request } from '../api/http.ts';
import type { Check, SettingsReport } from '../api/types.ts';
import { duration } from '../lib/format.ts';
import { useResource } from '../lib/resource.ts';
import { WriteButton } from '../ui/action.tsx';
import { Badge } from '../ui/badge.tsx';
import { Page, Panel } from '../ui/page.tsx';
import { Failure, Loaded } from '../ui/state.tsx';
import { type Column, Table } from '../ui/table.tsx';
import { Foreign } from '../ui/text.tsx';

type Setting = SettingsReport['settings'][number];

export function Settings() {
  const settings = useResource('settings', (signal) => request<SettingsReport>('/v1/admin/settings', { signal }));
  return (
    <Page
      title="Settings"
      about="The configuration of the node that answers. It is set by the environment; secrets are never sent."
    >
      <Tester />
      <Loaded resource={settings}>
        {({ settings: rows, endpoints }) => (
          <>
            <Variables rows={rows} />
            <Endpoints endpoints={endpoints} />
          </>
        )}
      </Loaded>
    </Page>
  );
}

/** Checks that the node reaches what it depends on. */
function Tester() {
  const [state, setState] = useState<{ pending: boolean; checks?: readonly Check[]; error?: unknown }>({
    pending: false,
  });
  const run = async () => {
    setState({ pending: true });
    try {
      const { checks } = await request<{ checks: Check[] }>('/v1/admin/settings/test', { method: 'POST' });
      setState({ pending: false, checks });
    } catch (error) {
      setState({ pending: false, error });
    }
  };
  return (
    <Panel
      title="Connection test"
      flush={state.checks !== undefined}
      actions={
        <WriteButton label={state.pending ? 'Testing …' : 'Test connections'} small onClick={() => void run()} />
      }
    >
      {state.error !== undefined && <Failure error={state.error} />}
      {state.checks ? (
        <Table caption="Checks" columns={CHECKS} rows={state.checks} keyOf={({ name }) => name} empty="No checks" />
      ) : (
        <p class="muted">Asks Redis, the auth service, the archive, the models and the tool servers for an answer.</p>
      )}
    </Panel>
  );
}

const CHECKS: readonly Column<Check>[] = [
  { title: 'Dependency', cell: ({ name }) => <span class="mono">{name}</span> },
  { title: 'Outcome', cell: ({ ok }) => <Badge tone={ok ? 'ok' : 'bad'}>{ok ? 'answers' : 'fails'}</Badge> },
  { title: 'Time', kind: 'number', cell: ({ ms }) => duration(ms) },
  { title: 'Detail', cell: ({ detail }) => <Foreign text={detail} /> },
];

function Variables({ rows }: { readonly rows: readonly Setting[] }) {
  const [search, setSearch] = useState('');
  const [onlySet, setOnlySet] = useState(false);
  const shown = rows.filter(
    ({ name, source }) => name.toLowerCase().includes(search.toLowerCase()) && !(onlySet && source === 'default'),
  );
  return (
    <Panel
      title={`Variables (${shown.length} of ${rows.length})`}
      flush
      actions={
        <>
          <label>
            <input type="checkbox" checked={onlySet} onChange={(event) => setOnlySet(event.currentTarget.checked)} />{' '}
            Only those that are set
          </label>
          <input
            class="input search"
            type="search"
            aria-label="Search variables"
            placeholder="Search"
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </>
      }
    >
      <Table
        caption="Variables"
        columns={VARIABLES}
        rows={shown}
        keyOf={({ name }) => name}
        empty="No variable matches"
      />
    </Panel>
  );
}

const VARIABLES: readonly Column<Setting>[] = [
  { title: 'Variable', cell: ({ name }) => <span class="mono">{name}</span> },
  { title: 'Value', cell: (row) => <SettingValue {...row} /> },
  {
    title: 'Source',
    cell: ({ source }) =>
      source === 'default' ? <span class="muted">default</span> : <Badge tone="accent">{source}</Badge>,
  },
];

function SettingValue({ value, secret, source }: Setting) {
  if (secret) return <span class="muted">{source === 'default' ? 'not set' : 'set, not shown'}</span>;
  return value === null || value === '' ? <span class="muted">not set</span> : <Foreign text={value} mono />;
}

function Endpoints({ endpoints }: Pick<SettingsReport, 'endpoints'>) {
  return (
    <Panel title="Endpoints" flush>
      <Table caption="Endpoints" columns={ENDPOINTS} rows={endpoints} keyOf={({ path }) => path} empty="No endpoints" />
    </Panel>
  );
}

const ENDPOINTS: readonly Column<SettingsReport['endpoints'][number]>[] = [
  { title: 'Path', cell: ({ path }) => <span class="mono">{path}</span> },
  { title: 'What it is', cell: ({ description }) => description },
];
