import { request } from '../../api/http.ts';
import type { CatalogueReport } from '../../api/types.ts';
import { useResource } from '../../lib/resource.ts';

/** A choice of the plans of the catalogue. */
export function PlanField({ current }: { readonly current: string | null }) {
  const catalogue = useResource('catalogue', (signal) => request<CatalogueReport>('/v1/admin/catalogue', { signal }));
  const plans = catalogue.data?.matrix.plans ?? (current === null ? [] : [current]);
  return (
    <label class="field">
      <span>Plan</span>
      <select class="input" name="plan" required>
        {plans.map((plan) => (
          <option key={plan} value={plan} selected={plan === current}>
            {plan}
          </option>
        ))}
      </select>
    </label>
  );
}
