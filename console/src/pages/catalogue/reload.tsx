import { request } from '../../api/http.ts';
import type { CatalogueDiff } from '../../api/types.ts';
import { plural } from '../../lib/format.ts';
import { useResource } from '../../lib/resource.ts';
import { shorten } from '../../lib/shorten.ts';
import { Action } from '../../ui/action.tsx';
import { Badge, type Tone } from '../../ui/badge.tsx';
import { Panel } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { type Column, Table } from '../../ui/table.tsx';
import { Foreign } from '../../ui/text.tsx';

type Change = CatalogueDiff['changes'][number];
const VALUE_LENGTH = 160;
const TONES: Readonly<Record<Change['kind'], Tone>> = { added: 'ok', removed: 'bad', changed: 'warn' };

/** What the files say that the node does not use yet, and the reload that makes it so. */
export function Reload({ onReloaded }: { readonly onReloaded: () => void }) {
  const diff = useResource('diff', (signal) => request<CatalogueDiff>('/v1/admin/catalogue/diff', { signal }));
  const check = (
    <button type="button" class="button" data-size="small" onClick={() => void diff.reload()}>
      Read the files again
    </button>
  );
  return (
    <Panel title="Changes in the files" flush={(diff.data?.changes.length ?? 0) > 0} actions={check}>
      <Loaded resource={diff}>
        {(data) => (
          <Diff
            diff={data}
            onReloaded={() => {
              void diff.reload();
              onReloaded();
            }}
          />
        )}
      </Loaded>
    </Panel>
  );
}

function Diff({ diff, onReloaded }: { readonly diff: CatalogueDiff; readonly onReloaded: () => void }) {
  if (!diff.valid) {
    return (
      <div class="notice" data-tone="bad">
        <div>
          <strong>The files cannot be loaded. Every node keeps what it has.</strong>
          <ul class="wrap">
            {diff.mistakes.map((mistake) => (
              <li key={`${mistake.file} ${mistake.field}`}>
                <code>
                  {mistake.file}:{mistake.line}
                </code>{' '}
                <bdi>
                  {mistake.field} {mistake.message}
                </bdi>
              </li>
            ))}
          </ul>
        </div>
      </div>
    );
  }
  if (diff.changes.length === 0) return <p class="muted">The files contain what the nodes use.</p>;
  return (
    <>
      <Table
        caption="Changes that a reload brings"
        columns={COLUMNS}
        rows={diff.changes}
        keyOf={({ path }) => path}
        empty=""
      />
      <div class="panel-foot row">
        <Action
          label="Reload"
          kind="primary"
          title="Reload the catalogue"
          consequence={`${plural(diff.changes.length, 'change')} apply on every node at once, to open connections too.`}
          run={async () => {
            const { version } = await request<{ version: string }>('/v1/config/reload', { method: 'POST' });
            return `The nodes use version ${version}.`;
          }}
          onDone={onReloaded}
        />
      </div>
    </>
  );
}

const COLUMNS: readonly Column<Change>[] = [
  { title: 'Path', cell: ({ path }) => <Foreign text={path} mono /> },
  { title: 'Change', cell: ({ kind }) => <Badge tone={TONES[kind]}>{kind}</Badge> },
  { title: 'Before', cell: ({ before }) => <Value value={before} /> },
  { title: 'After', cell: ({ after }) => <Value value={after} /> },
];

function Value({ value }: { readonly value: unknown }) {
  return value === undefined || value === null ? (
    <>–</>
  ) : (
    <Foreign text={shorten(JSON.stringify(value), VALUE_LENGTH)} mono />
  );
}
