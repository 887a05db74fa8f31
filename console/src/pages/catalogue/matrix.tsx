import type { CatalogueReport } from '../../api/types.ts';
import { Panel } from '../../ui/page.tsx';
import { Empty } from '../../ui/state.tsx';
import { Foreign } from '../../ui/text.tsx';

/** Tools by plan. A tool can need a feature flag or role besides its permission. */
export function Matrix({ catalogue }: { readonly catalogue: CatalogueReport }) {
  const { plans, tools } = catalogue.matrix;
  if (tools.length === 0) return <Empty title="The catalogue has no tools" />;
  const permissionOf = new Map(catalogue.tools.map(({ name, permission }) => [name, permission]));
  return (
    <Panel title="Tools by plan" flush>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: an area that scrolls has to be reachable with the keyboard */}
      <section class="table-scroll" aria-label="Tools by plan" tabIndex={0}>
        <table class="table matrix">
          <thead>
            <tr>
              <th scope="col">Tool</th>
              <th scope="col">Permission</th>
              {plans.map((plan) => (
                <th key={plan} scope="col" class="center">
                  <bdi>{plan}</bdi>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {tools.map(({ tool, allowed }) => (
              <tr key={tool}>
                <th scope="row">
                  <Foreign text={tool} mono />
                </th>
                <td class="muted">
                  <Foreign text={permissionOf.get(tool)} />
                </td>
                {plans.map((plan) => (
                  <td key={plan} class="center">
                    <Mark allowed={allowed[plan] === true} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </Panel>
  );
}

function Mark({ allowed }: { readonly allowed: boolean }) {
  return (
    <span class={allowed ? 'allowed' : 'denied'}>
      <span aria-hidden="true">{allowed ? '●' : '·'}</span>
      <span class="visually-hidden">{allowed ? 'allowed' : 'not allowed'}</span>
    </span>
  );
}
