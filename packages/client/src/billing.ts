import type { LedgerRecord } from './ledger-record.ts';

export type BillingSystem = 'stripe' | 'openmeter' | 'lago';

/** Name of the meter at Stripe and OpenMeter, and of the billable metric at Lago. */
const METER = 'tollgate_units';
/** Maximum number of events per request of Stripe and Lago. */
const EVENTS_PER_REQUEST = 100;

/**
 * Renders records as the JSON bodies of requests to a billing system, as `GET /v1/usage/export` renders a window:
 * Stripe's `POST /v2/billing/meter_event_stream`, OpenMeter's `POST /api/v1/events`, or Lago's
 * `POST /api/v1/events/batch`. Each body has at most 100 events. The receivers drop events that they have received
 * before, so a request can be repeated.
 */
export function billingRequests(system: BillingSystem, records: Iterable<LedgerRecord>): unknown[] {
  const events: unknown[] = [];
  for (const record of records) {
    // OpenMeter counts free calls too; the others only add up units.
    if (record.units !== 0 || system === 'openmeter') events.push(EVENTS[system](record));
  }
  const bodies: unknown[] = [];
  for (let at = 0; at < events.length; at += EVENTS_PER_REQUEST) {
    const some = events.slice(at, at + EVENTS_PER_REQUEST);
    bodies.push(system === 'openmeter' ? some : { events: some });
  }
  return bodies;
}

const EVENTS: Readonly<Record<BillingSystem, (record: LedgerRecord) => unknown>> = {
  stripe: ({ id, user_id, units, completed_at }) => ({
    event_name: METER,
    identifier: id,
    timestamp: completed_at,
    payload: { stripe_customer_id: user_id, value: String(units) },
  }),
  openmeter: ({ id, user_id, completed_at, units, units_by_kind, duration_ms, tool, plan, status }) => ({
    specversion: '1.0',
    id,
    source: '/tollgate/ledger',
    type: METER,
    subject: user_id,
    time: completed_at,
    data: { units, ...(units_by_kind as object | undefined), duration_ms, tool, plan, status },
  }),
  lago: ({ id, user_id, completed_at, units, units_by_kind, tool, plan }) => ({
    transaction_id: id,
    external_subscription_id: user_id,
    code: METER,
    timestamp: Math.floor(Date.parse(completed_at) / 1000),
    properties: { units, ...(units_by_kind as object | undefined), tool, plan },
  }),
};
