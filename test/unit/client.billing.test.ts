import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';
import { billingRequests } from '../../packages/client/src/billing.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { usageRecord } from '../../src/usage/records.ts';
import { RENDERERS } from '../../src/usage/reports/renderers.ts';

/** What the gateway renders, for the Python client. `UPDATE_VECTORS=1` rewrites it after an intended change. */
const VECTORS = join(PROJECT_ROOT, 'packages/python/tests/billing_requests.json');
const SYSTEMS = ['stripe', 'openmeter', 'lago'] as const;
const COMPLETED_AT = Date.parse('2026-03-01T10:20:30.999Z');

function ledgerRecord(sequence: number, changes: object = {}) {
  const record = usageRecord({
    callId: `call_${sequence}`,
    user_id: 'user_1',
    plan: 'pro',
    tool: 'analyze_workload',
    permission: 'analytics',
    status: 'success',
    units: 5,
    run_id: null,
    thread_id: null,
    request_id: null,
    idempotency_key: null,
    transport: 'http',
    acceptedAt: COMPLETED_AT - 12,
    startedAt: COMPLETED_AT - 12,
    completedAt: COMPLETED_AT,
  });
  return { ...record, sequence, hash: String(sequence).padStart(64, '0'), ...changes };
}

const RECORDS = [
  ledgerRecord(1),
  ledgerRecord(2, { units: 0, status: 'error' }),
  ledgerRecord(3, { units: -4, corrects: 'usage_1' }),
  ledgerRecord(4, { tool: 'model:small', units: 2, units_by_kind: { input_tokens: 1_200, output_tokens: 30 } }),
  ledgerRecord(5, { user_id: 'Jörg "J" <j@example.test>' }),
];
const MANY = Array.from({ length: 250 }, (_, at) => ledgerRecord(at + 1));

async function ofTheGateway(system: (typeof SYSTEMS)[number], records: typeof RECORDS): Promise<unknown[]> {
  async function* batches() {
    yield records;
  }
  let text = '';
  for await (const chunk of RENDERERS[system].body(batches())) text += chunk;
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

it.each(SYSTEMS)('the client package renders the requests to %s that the gateway renders', async (system) => {
  for (const records of [RECORDS, MANY, []]) {
    const expected = await ofTheGateway(system, records);
    expect(JSON.parse(JSON.stringify(billingRequests(system, records)))).toEqual(expected);
  }
});

it('the Python client is tested against the requests that the gateway renders', async () => {
  const requests: Record<string, unknown> = {};
  for (const system of SYSTEMS) requests[system] = await ofTheGateway(system, RECORDS);
  const vectors = { records: RECORDS, requests };
  if (process.env.UPDATE_VECTORS) writeFileSync(VECTORS, `${JSON.stringify(vectors, undefined, 2)}\n`);
  expect(JSON.parse(readFileSync(VECTORS, 'utf8'))).toEqual(JSON.parse(JSON.stringify(vectors)));
});
