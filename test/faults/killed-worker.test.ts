import { describe, expect, it } from '@jest/globals';
import { openClient, type TestClient } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { durable, isTerminal, seqs, upTo } from '../support/runs.ts';
import { type StackProcesses, useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** `npm run faults` sets more. */
const RUNS = Number(process.env.FAULT_RUNS ?? 20);
const KILLS = Number(process.env.FAULT_KILLS ?? 1);
/** Guarantee: 45 s from the worker's death. */
const RECOVERY_MS = 45_000;

const processes = useStack({ gateways: 1, workers: 2, env: { MESSAGE_RATE_PER_MINUTE: '10000' } });

async function connect(stack: StackProcesses): Promise<{ client: TestClient; userId: string }> {
  const { token, userId } = mintToken({ plan: 'developer' }, { stack: stack.addresses });
  const client = await openClient({ token, url: stack.gateways[0]?.url ?? '' });
  await client.welcome();
  return { client, userId };
}

function ends(client: TestClient) {
  return client.events.filter(isTerminal);
}

/** Returns every usage record id that the client received in a `tool_completed`. */
function receivedRecords(client: TestClient): string[] {
  return durable(client.events).flatMap(({ type, fields }) => {
    return type === 'tool_completed' && typeof fields.usage_record_id === 'string' ? [fields.usage_record_id] : [];
  });
}

async function expectBillEqualsStream(stack: StackProcesses, client: TestClient, userId: string): Promise<void> {
  const received = receivedRecords(client);
  await until(async () => (await billedRecords(userId, stack.addresses)).length >= received.length, {
    timeoutMs: 15_000,
  });
  const billed = await billedRecords(userId, stack.addresses);
  expect(billed.map(({ id }) => id).toSorted()).toEqual(received.toSorted());
}

describe('a run whose worker is killed', () => {
  it('is taken over and ends once, within 45 s, with no gap', async () => {
    const stack = processes();
    const { client, userId } = await connect(stack);
    let caught: string | undefined;
    // A run takes about ten milliseconds, so the kill is repeated until it hits the middle of one.
    for (let attempt = 1; attempt <= 20 && caught === undefined; attempt++) {
      const request_id = `${userId}_${attempt}`;
      const from = client.mark();
      client.send('agent_request', { message: 'How is my workload doing?', request_id });
      await client.waitFor('agent_thinking', { from });
      const frozen = stack.workers.filter(({ running }) => running);
      for (const { pid } of frozen) if (pid) process.kill(pid, 'SIGSTOP');
      const finished = ends(client).some(({ fields }) => fields.request_id === request_id);
      if (finished) {
        for (const { pid } of frozen) if (pid) process.kill(pid, 'SIGCONT');
        continue;
      }
      await Promise.all(frozen.map((worker) => worker.kill('SIGKILL')));
      await Promise.all(frozen.map((worker) => worker.start()));
      caught = request_id;
    }
    expect(caught).toBeDefined();
    await client.waitFor((event) => isTerminal(event) && event.fields.request_id === caught, {
      timeoutMs: RECOVERY_MS,
    });
    expect(ends(client).filter(({ fields }) => fields.request_id === caught)).toHaveLength(1);
    expect(seqs(client.events)).toEqual(upTo(seqs(client.events).length));
    await expectBillEqualsStream(stack, client, userId);
  }, 90_000);

  it(
    `leaves a bill that agrees with the stream record by record (${RUNS} runs, ${KILLS} kills)`,
    async () => {
      const stack = processes();
      const { client, userId } = await connect(stack);
      const killing = (async () => {
        for (let kill = 0; kill < KILLS; kill++) {
          const worker = stack.workers[kill % stack.workers.length];
          await until(() => ends(client).length >= ((kill + 0.5) / KILLS) * RUNS, { timeoutMs: 120_000, everyMs: 1 });
          await worker?.kill('SIGKILL');
          await worker?.start();
        }
      })();
      for (let run = 0; run < RUNS; run++) {
        client.send('agent_request', { message: 'Cost and health of the system?', request_id: `${userId}_${run}` });
        await until(() => ends(client).length > run - 8, { timeoutMs: RECOVERY_MS, everyMs: 1 });
      }
      await killing;
      await until(() => ends(client).length === RUNS, { timeoutMs: 2 * RECOVERY_MS });
      expect(new Set(ends(client).map(({ fields }) => fields.request_id)).size).toBe(RUNS);
      expect(seqs(client.events)).toEqual(upTo(seqs(client.events).length));
      await expectBillEqualsStream(stack, client, userId);
    },
    60_000 + KILLS * 60_000,
  );
});
