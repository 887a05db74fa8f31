import { describe, expect, it } from '@jest/globals';
import { openClient, type TestClient, TRANSPORTS, type TransportName } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { durable, seqs, upTo } from '../support/runs.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

/** `npm run faults` sets more. */
const CALLS = Number(process.env.FAULT_CALLS ?? 60);
const KILLS = Number(process.env.FAULT_KILLS ?? 2);
/** Concurrent calls, each under its own key. */
const CALLERS = 6;
/** A call counts as interrupted six seconds after its start, and a sweep runs every five. */
const RECOVERY_MS = 30_000;

// The test reads all events again from the log.
const EVENT_LOG_LENGTH = String(100 + 4 * CALLS);
const env = {
  EVENT_LOG_LENGTH,
  EVENT_LOG_BYTES: String(2 ** 30),
  MESSAGE_RATE_PER_MINUTE: '100000',
  TOOL_TIMEOUT_SECONDS: '1',
  MAX_CONNECTIONS_PER_USER: '50',
};
const processes = useStack({ gateways: 3, workers: 1, env });

describe.each(TRANSPORTS)('tool calls over %s whose gateways are killed', (transport) => {
  it(`are executed, reported and charged once each, however often clients repeat them (${CALLS} calls, ${KILLS} kills)`, async () => {
    const { token, userId } = mintToken({ plan: 'enterprise' }, { stack: processes().addresses });
    let number = 0;
    let done = 0;
    const answers: Record<string, unknown>[] = [];
    const caller = async (at: number) => {
      let node = at;
      let client: TestClient | undefined;
      while (number < CALLS) {
        const key = `key_${number++}`;
        for (;;) {
          const answer = await attempt(client, key).catch(() => undefined);
          if (answer) {
            answers.push(answer);
            break;
          }
          client = await connect(transport, token, node++ % 3);
        }
        done += 1;
      }
      await client?.close();
    };
    const killing = async () => {
      for (let kill = 1; kill <= KILLS; kill++) {
        await until(() => done >= (kill * CALLS) / (KILLS + 1), { timeoutMs: RECOVERY_MS });
        const victim = processes().gateways[kill % 3];
        await victim?.kill('SIGKILL');
        await victim?.start();
      }
    };
    await Promise.all([killing(), ...Array.from({ length: CALLERS }, (_, at) => caller(at))]);
    await checkInvariants(transport, token, userId, answers);
  }, 120_000);
});

/** Returns the answer under a key, over a connection that may have ended. @throws Error without an answer */
async function attempt(client: TestClient | undefined, key: string): Promise<Record<string, unknown>> {
  if (!client) throw new Error('not connected');
  const disconnected = client.closed.then(() => {
    throw new Error('the connection is gone');
  });
  const args = { title: key };
  const { type, fields } = await Promise.race([
    callTool(client, 'create_thread', args, { idempotency_key: key }),
    disconnected,
  ]);
  if (type === 'error' && fields.retryable !== true) throw new Error(`refused: ${JSON.stringify(fields)}`);
  if (type === 'error') throw new Error('again');
  return fields;
}

async function connect(transport: TransportName, token: string, node: number): Promise<TestClient | undefined> {
  const url = processes().gateways[node]?.url ?? '';
  try {
    const client = await openClient({ transport, token, url });
    await client.welcome();
    return client;
  } catch {
    return undefined;
  }
}

/**
 * Expects that everything that started has ended once, each ended call is in the ledger, each successful one is
 * charged, and no reservation remains.
 */
async function checkInvariants(
  transport: TransportName,
  token: string,
  userId: string,
  answers: Record<string, unknown>[],
) {
  const reader = await openClient({ transport, token, url: processes().gateways[0]?.url ?? '' });
  const { epoch } = await reader.welcome();
  reader.send('resume', { after: 0, epoch });
  await reader.waitFor('resumed', { timeoutMs: RECOVERY_MS });
  const idsOf = (type: string) => {
    return durable(reader.events)
      .filter((event) => event.type === type)
      .map(({ fields }) => String(fields.tool_call_id))
      .toSorted();
  };
  const balanced = () => idsOf('tool_completed').length === idsOf('tool_executing').length;
  await until(balanced, { timeoutMs: RECOVERY_MS, label: 'every call to have ended' });
  expect(idsOf('tool_completed')).toEqual(idsOf('tool_executing'));
  expect(new Set(idsOf('tool_executing')).size).toBe(idsOf('tool_executing').length);
  expect(seqs(reader.events)).toEqual(upTo(seqs(reader.events).length));

  const completed = durable(reader.events).filter(({ type }) => type === 'tool_completed');
  const answered = completed.map(({ fields }) => String(fields.usage_record_id)).toSorted();
  const { addresses } = processes();
  await until(async () => (await billedRecords(userId, addresses)).length >= answered.length, { timeoutMs: 15_000 });
  const billed = await billedRecords(userId, addresses);
  expect(billed.map(({ id }) => id).toSorted()).toEqual(answered);
  const succeeded = completed.filter(({ fields }) => fields.success === true);
  expect(billed.reduce((sum, { units }) => sum + Number(units), 0)).toBe(succeeded.length);

  expect(answers).toHaveLength(CALLS);
  const outcomes = new Map(completed.map(({ fields }) => [fields.tool_call_id, fields.success]));
  for (const answer of answers) expect(answer.success).toBe(outcomes.get(answer.tool_call_id));
  const from = reader.mark();
  reader.send('usage_summary');
  const { fields } = await reader.waitFor('usage_summary', { from });
  expect(fields).toMatchObject({ under_way: { calls: 0 }, today: { units: succeeded.length } });
  await reader.close();
}
