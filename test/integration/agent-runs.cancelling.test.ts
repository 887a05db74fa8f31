import { describe, expect, it } from '@jest/globals';
import { eventsOf } from '../support/agent-runs.ts';
import { openClient, TRANSPORTS, type TransportName } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { isTerminal } from '../support/runs.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

/** A stack whose worker can be stopped, so that a run waits as long as the test requires. */
const stack = useStack({ gateways: 1, workers: 1 });

async function connect(transport: TransportName) {
  const of = stack().addresses;
  const client = await openClient({ transport, url: nodeUrl(0, of), token: mintToken({}, { stack: of }).token });
  await client.welcome();
  return client;
}

describe('a run that is cancelled', () => {
  it('ends with agent_cancelled, once, and runs no tool', async () => {
    const [worker] = stack().workers;
    await worker?.stop();
    const waiting = [];
    for (const [at, transport] of TRANSPORTS.entries()) {
      const client = await connect(transport);
      client.send('agent_request', { message: 'How is my workload?', request_id: 'req_1' });
      const { run_id } = (await client.waitFor('agent_accepted')).fields;
      client.send(at === 0 ? 'agent_cancel' : 'stop_agent', { run_id, request_id: 'req_2' });
      const { fields } = await client.waitFor('cancel_accepted');
      expect(fields).toMatchObject({ run_id, request_id: 'req_2', already_ended: false });
      waiting.push({ client, run_id });
    }
    await worker?.start();
    for (const { client, run_id } of waiting) {
      const end = await client.waitFor((event) => isTerminal(event) && event.fields.run_id === run_id, {
        timeoutMs: 15_000,
      });
      expect(end.type).toBe('agent_cancelled');
      expect(end.fields).toMatchObject({ run_id, status: 'cancelled', duration_ms: expect.any(Number) });
      expect(eventsOf(client, run_id).map(({ type }) => type)).toEqual(['agent_started', 'agent_cancelled']);
      client.send('agent_cancel', { run_id, request_id: 'req_3' });
      const again = await client.waitFor(({ fields }) => fields.request_id === 'req_3');
      expect(again.fields).toMatchObject({ already_ended: true });
    }
  });

  it('does not hinder the next one', async () => {
    const client = await connect('ws');
    client.send('agent_request', { message: 'How is my workload?', request_id: 'req_1' });
    await client.waitFor('agent_completed', { timeoutMs: 15_000 });
  });
});
