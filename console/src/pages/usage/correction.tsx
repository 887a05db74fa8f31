import { useMemo } from 'preact/hooks';
import { request } from '../../api/http.ts';
import type { UsageRecord } from '../../api/types.ts';
import { Action } from '../../ui/action.tsx';

/** Changes the units of a record by a new one. The record itself never changes. */
export function Correction({ record, onDone }: { readonly record: UsageRecord; readonly onDone: () => void }) {
  const { id, sequence, units } = record;
  // One key per dialog: a repeated click after a lost answer corrects once.
  const key = useMemo(() => crypto.randomUUID(), []);
  return (
    <Action
      label="Correct"
      small
      title={`Correct record ${sequence}`}
      consequence={`It charged ${units} units. A new record changes them and points to this one; both stay in the ledger.`}
      confirm="Add the correction"
      fields={
        <>
          <label class="field">
            <span>Units to add; negative to give back</span>
            <input class="input" type="number" name="units" required step="1" defaultValue={-units} />
          </label>
          <label class="field">
            <span>Reason</span>
            <input class="input" name="reason" required maxLength={200} dir="auto" />
          </label>
        </>
      }
      run={async (form) => {
        await request('/v1/usage/corrections', {
          method: 'POST',
          headers: { 'idempotency-key': key },
          body: { record_id: id, sequence, units: Number(form.get('units')), reason: String(form.get('reason')) },
        });
        return 'The correction is in the ledger.';
      }}
      onDone={onDone}
    />
  );
}
