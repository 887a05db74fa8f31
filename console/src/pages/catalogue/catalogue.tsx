import { request } from '../../api/http.ts';
import type { CatalogueReport } from '../../api/types.ts';
import { useResource } from '../../lib/resource.ts';
import { href, type PageProps } from '../../lib/router.ts';
import { Page, Tabs } from '../../ui/page.tsx';
import { Loaded } from '../../ui/state.tsx';
import { Agents, Plans, Servers, Tools } from './lists.tsx';
import { Matrix } from './matrix.tsx';
import { Reload } from './reload.tsx';

const TABS = [
  { id: 'matrix', title: 'Who may use what' },
  { id: 'plans', title: 'Plans' },
  { id: 'tools', title: 'Tools' },
  { id: 'agents', title: 'Agents' },
  { id: 'servers', title: 'Tool servers' },
] as const;

export function Catalogue({ route }: PageProps) {
  const [tab = 'matrix'] = route.rest;
  const catalogue = useResource('catalogue', (signal) => request<CatalogueReport>('/v1/admin/catalogue', { signal }));
  const version = catalogue.data?.version;
  return (
    <Page
      title="Catalogue"
      about={
        <>
          Plans, tools and agents as this node uses them{version && <>, version </>}
          {version && <code>{version}</code>}.
        </>
      }
    >
      <Reload key={version} onReloaded={() => void catalogue.reload()} />
      <Tabs label="Views" tabs={TABS.map((one) => ({ ...one, href: href(['catalogue', one.id]) }))} current={tab} />
      <Loaded resource={catalogue}>
        {(data) => (
          <>
            {tab === 'matrix' && <Matrix catalogue={data} />}
            {tab === 'plans' && <Plans rows={data.plans} />}
            {tab === 'tools' && <Tools rows={data.tools} />}
            {tab === 'agents' && <Agents rows={data.agents} />}
            {tab === 'servers' && <Servers />}
          </>
        )}
      </Loaded>
    </Page>
  );
}
