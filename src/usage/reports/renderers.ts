import { CloudEvent } from 'cloudevents';
import type { LedgerRecord } from '../../protocol/usage.ts';

export const EXPORT_FORMATS = ['cloudevents', 'stripe', 'openmeter', 'lago'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

export const NDJSON = 'application/x-ndjson';
/** JSON Batch Format: CloudEvents 1.0, json-format.md section 4. */
export const CLOUDEVENTS_BATCH = 'application/cloudevents-batch+json';

/** The CloudEvents `source`: the ledger, within which ids are unique. CloudEvents requires a URI reference. */
const SOURCE = '/tollgate/ledger';
/** Name of the meter at Stripe, and of the billable metric at Lago. */
const METER = 'tollgate_units';
/** Maximum number of events per request of Stripe's meter event stream and of Lago's batch route. */
const EVENTS_PER_REQUEST = 100;

/** Writes an export format record by record, so that a window of any size can be exported without buffering it. */
export interface Renderer {
  readonly contentType: string;
  /** Yields the whole body in chunks. */
  readonly body: (records: AsyncIterable<readonly LedgerRecord[]>) => AsyncGenerator<string>;
}

/** The export formats of a closed window. docs/billing.md lists the fields of each. */
export const RENDERERS: Readonly<Record<ExportFormat, Renderer>> = {
  cloudevents: { contentType: CLOUDEVENTS_BATCH, body: (records) => jsonArray(records, cloudEvent) },
  stripe: requests(
    (record) => (record.units === 0 ? undefined : stripeEvent(record)),
    (events) => ({ events }),
  ),
  openmeter: requests(openMeterEvent, (events) => events),
  lago: requests(
    (record) => (record.units === 0 ? undefined : lagoEvent(record)),
    (events) => ({ events }),
  ),
};

/**
 * Renders a record as a CloudEvent (CloudEvents 1.0, spec.md). `id` together with `source` identifies it, so that a
 * consumer can drop duplicates. `sequence` is the documented extension of that name.
 */
export function cloudEvent(record: LedgerRecord): CloudEvent<LedgerRecord> {
  return new CloudEvent({
    id: record.id,
    source: SOURCE,
    type: record.corrects === undefined ? 'tollgate.usage.recorded' : 'tollgate.usage.corrected',
    subject: record.user_id,
    time: record.completed_at,
    datacontenttype: 'application/json',
    sequence: String(record.sequence),
    data: record,
  });
}

/**
 * Renders an event of Stripe's `POST /v2/billing/meter_event_stream` (docs.stripe.com/api/v2/billing-meter-stream: up
 * to 100 events per request). Values are integers, as text; negative values subtract usage
 * (docs.stripe.com/billing/subscriptions/usage-based/meters/configure). The identifier has at most 100 characters and
 * prevents an event that is sent twice within a day from counting twice.
 */
function stripeEvent({ id, user_id, units, completed_at }: LedgerRecord) {
  return {
    event_name: METER,
    identifier: id,
    timestamp: completed_at,
    payload: { stripe_customer_id: user_id, value: String(units) },
  };
}

/**
 * Renders an event of OpenMeter's `POST /api/v1/events` (openmeter.io/docs/metering/events/overview): a CloudEvent
 * whose `type` selects the meter, whose `subject` is the customer, and whose `data` contains the summed values and the
 * group keys.
 */
function openMeterEvent(record: LedgerRecord) {
  const { id, user_id, completed_at, units, units_by_kind, duration_ms, tool, plan, status } = record;
  return new CloudEvent({
    id,
    source: SOURCE,
    type: METER,
    subject: user_id,
    time: completed_at,
    data: { units, ...units_by_kind, duration_ms, tool, plan, status },
  });
}

/**
 * Renders an event of Lago's `POST /api/v1/events/batch` (docs.getlago.com/api-reference/events/batch: up to 100 events
 * per request, all or none). `transaction_id` prevents an event that is sent twice from counting twice. Times are in
 * seconds.
 */
function lagoEvent({ id, user_id, completed_at, units, units_by_kind, tool, plan }: LedgerRecord) {
  return {
    transaction_id: id,
    external_subscription_id: user_id,
    code: METER,
    timestamp: Math.floor(Date.parse(completed_at) / 1000),
    properties: { units, ...units_by_kind, tool, plan },
  };
}

async function* jsonArray(
  batches: AsyncIterable<readonly LedgerRecord[]>,
  render: (record: LedgerRecord) => unknown,
): AsyncGenerator<string> {
  let separator = '[';
  for await (const records of batches) {
    if (records.length === 0) continue;
    yield separator + records.map((record) => JSON.stringify(render(record))).join(',\n');
    separator = ',\n';
  }
  yield separator === '[' ? '[]' : ']';
}

/** Renders one request body per line, each with as many events as the receiver accepts. */
function requests(
  render: (record: LedgerRecord) => unknown,
  bodyOf: (events: readonly unknown[]) => unknown,
): Renderer {
  const line = (events: readonly unknown[]) => `${JSON.stringify(bodyOf(events))}\n`;
  return {
    contentType: NDJSON,
    async *body(batches) {
      let events: unknown[] = [];
      for await (const records of batches) {
        for (const record of records) {
          const event = render(record);
          if (event === undefined) continue;
          events.push(event);
          if (events.length < EVENTS_PER_REQUEST) continue;
          yield line(events);
          events = [];
        }
      }
      if (events.length > 0) yield line(events);
    },
  };
}
