import { describe, expect, it } from '@jest/globals';
import { CloudEvent } from 'cloudevents';
import type { LedgerRecord } from '../../src/protocol/usage.ts';
import { decodeCursor, encodeCursor } from '../../src/usage/ledger/feed-cursor.ts';
import { BEGINNING } from '../../src/usage/ledger/ledger.ts';
import { usageRecord } from '../../src/usage/records.ts';
import { cloudEvent, type ExportFormat, RENDERERS } from '../../src/usage/reports/renderers.ts';

const COMPLETED_AT = Date.parse('2026-03-01T10:20:30.456Z');

function ledgerRecord(sequence: number, changes: Partial<LedgerRecord> = {}): LedgerRecord {
  const record = usageRecord({
    callId: `call_${sequence}`,
    user_id: 'user_1',
    plan: 'pro',
    tool: 'analyze_workload',
    permission: 'analytics',
    status: 'success',
    units: 5,
    run_id: 'run_1',
    thread_id: null,
    request_id: null,
    idempotency_key: null,
    transport: 'websocket',
    acceptedAt: COMPLETED_AT - 12,
    startedAt: COMPLETED_AT - 12,
    completedAt: COMPLETED_AT,
  });
  return { ...record, sequence, hash: String(sequence).padStart(64, '0'), ...changes };
}

async function rendered(format: ExportFormat, batches: readonly (readonly LedgerRecord[])[]): Promise<string> {
  async function* source() {
    yield* batches;
  }
  const pieces: string[] = [];
  for await (const piece of RENDERERS[format].body(source())) pieces.push(piece);
  return pieces.join('');
}

const lines = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('a record as a CloudEvent', () => {
  it('is valid by the specification 1.0, and has the record as it is', () => {
    const record = ledgerRecord(7);
    const event = JSON.parse(JSON.stringify(cloudEvent(record))) as Record<string, unknown>;
    expect(event).toEqual({
      id: record.id,
      source: '/tollgate/ledger',
      specversion: '1.0',
      type: 'tollgate.usage.recorded',
      subject: 'user_1',
      time: '2026-03-01T10:20:30.456Z',
      datacontenttype: 'application/json',
      sequence: '7',
      data: record,
    });
    expect(new CloudEvent(event).validate()).toBe(true);
    expect(cloudEvent(ledgerRecord(8, { corrects: record.id })).type).toBe('tollgate.usage.corrected');
  });
});

describe('an export', () => {
  it('as CloudEvents is one JSON array, of batches of any size, and an empty one of none', async () => {
    const text = await rendered('cloudevents', [[], [ledgerRecord(1)], [ledgerRecord(2), ledgerRecord(3)]]);
    expect(JSON.parse(text).map(({ sequence }: { sequence: string }) => sequence)).toEqual(['1', '2', '3']);
    expect(await rendered('cloudevents', [])).toBe('[]');
  });

  it('for Stripe has whole numbers as text, an identifier of up to 100 characters, and no free records', async () => {
    const batch = [ledgerRecord(1), ledgerRecord(2, { units: 0 }), ledgerRecord(3, { units: -4, corrects: 'usage_1' })];
    const [body, ...more] = lines(await rendered('stripe', [batch]));
    expect(more).toEqual([]);
    expect(body).toEqual({
      events: [
        {
          event_name: 'tollgate_units',
          identifier: batch[0]?.id,
          timestamp: '2026-03-01T10:20:30.456Z',
          payload: { stripe_customer_id: 'user_1', value: '5' },
        },
        expect.objectContaining({ payload: { stripe_customer_id: 'user_1', value: '-4' } }),
      ],
    });
    for (const { identifier, payload } of body.events) {
      expect(identifier.length).toBeLessThanOrEqual(100);
      expect(payload.value).toMatch(/^-?\d+$/);
    }
  });

  it('for OpenMeter has CloudEvents whose data can be added up and grouped', async () => {
    const [[event]] = lines(await rendered('openmeter', [[ledgerRecord(1)]]));
    expect(event).toMatchObject({
      specversion: '1.0',
      type: 'tollgate_units',
      subject: 'user_1',
      source: '/tollgate/ledger',
      data: { units: 5, duration_ms: 12, tool: 'analyze_workload', plan: 'pro', status: 'success' },
    });
  });

  it('for Lago has its names, and seconds', async () => {
    const record = ledgerRecord(1);
    expect(lines(await rendered('lago', [[record]]))).toEqual([
      {
        events: [
          {
            transaction_id: record.id,
            external_subscription_id: 'user_1',
            code: 'tollgate_units',
            timestamp: 1_772_360_430,
            properties: { units: 5, tool: 'analyze_workload', plan: 'pro' },
          },
        ],
      },
    ]);
  });

  it('of a model’s step has its tokens wherever they can be metered, under the names of the record', async () => {
    const tokens = { input_tokens: 1_200, output_tokens: 30 };
    const step = ledgerRecord(1, { tool: 'model:small', units: 2, units_by_kind: tokens, estimated: true });
    expect(lines(await rendered('openmeter', [[step]]))[0][0].data).toMatchObject({ units: 2, ...tokens });
    expect(lines(await rendered('lago', [[step]]))[0].events[0].properties).toMatchObject({ units: 2, ...tokens });
    expect(JSON.parse(await rendered('cloudevents', [[step]]))[0].data).toEqual(step);
    expect(lines(await rendered('stripe', [[step]]))[0].events[0].payload.value).toBe('2');
  });

  it.each(['stripe', 'openmeter', 'lago'] as const)('for %s has at most 100 events in a request', async (format) => {
    const records = Array.from({ length: 250 }, (_, at) => ledgerRecord(at + 1));
    const bodies = lines(await rendered(format, [records.slice(0, 130), records.slice(130)]));
    expect(bodies.map((body) => (Array.isArray(body) ? body : body.events).length)).toEqual([100, 100, 50]);
  });
});

describe('a cursor', () => {
  it('names the record that the reader has, and comes back as the place it was made of', () => {
    const position = { sequence: 42, hash: 'a'.repeat(64) };
    expect(decodeCursor(encodeCursor(position))).toEqual({ sequence: 42, hash: 'a'.repeat(16) });
    expect(decodeCursor(encodeCursor(BEGINNING))).toEqual(BEGINNING);
    expect([decodeCursor(''), decodeCursor('0')]).toEqual([BEGINNING, BEGINNING]);
  });

  it.each([
    'x',
    '42',
    '-1',
    Buffer.from('u1.42.').toString('base64url'),
    Buffer.from('u1.0.aaaaaaaaaaaaaaaa').toString('base64url'),
    Buffer.from('u1.42.aaaaaaaa').toString('base64url'),
    Buffer.from('u1.042.aaaaaaaaaaaaaaaa').toString('base64url'),
    Buffer.from('u2.42.aaaaaaaaaaaaaaaa').toString('base64url'),
    `${encodeCursor({ sequence: 42, hash: 'a'.repeat(64) })}=`,
    ` ${encodeCursor({ sequence: 42, hash: 'a'.repeat(64) })}`,
  ])('is refused when no answer ever contained it: %s', (cursor) => {
    expect(decodeCursor(cursor)).toBeUndefined();
  });
});
