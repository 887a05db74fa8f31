import { beforeAll, describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { textBySteps } from '../support/model-runs.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { durable, isTerminal, seqs, upTo } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Guarantee: 45 s from the worker's death. */
const RECOVERY_MS = 45_000;

let model: ModelServer;
let stack: StackProcesses;

beforeAll(async () => {
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
  const env = { AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'test-model' };
  stack = await startStack({ gateways: 1, workers: 1, env });
});

describe('a worker that is killed during a model’s answer', () => {
  it('leaves its runs to the next, with no gap, one end, and a bill that agrees', async () => {
    // Both runs call a tool first; the first worker is killed during their answers.
    let killed = false;
    model.script = ({ body }) => {
      if (!body.messages.some(({ role }) => role === 'tool')) return { calls: [{ name: 'list_agents' }] };
      const text = ['The ', 'agents ', 'are ', 'three.'];
      return killed ? { text } : { text: text.slice(0, 3), fault: 'hang' };
    };
    const watched = [];
    for (const transport of TRANSPORTS) {
      const { token, userId } = mintToken({}, { stack: stack.addresses });
      const client = await openClient({ transport, url: nodeUrl(0, stack.addresses), token });
      await client.welcome();
      client.send('agent_request', { message: 'Which agents are there?' });
      await client.waitFor(({ type, fields }) => type === 'agent_thinking' && fields.step === 2);
      watched.push({ client, userId });
    }
    const [worker] = stack.workers;
    await worker?.kill('SIGKILL');
    killed = true;
    await worker?.start();
    for (const { client, userId } of watched) {
      const end = await client.waitFor(isTerminal, { timeoutMs: RECOVERY_MS });
      expect(end).toMatchObject({ type: 'agent_completed', fields: { final_response: 'The agents are three.' } });
      expect(client.events.filter(isTerminal)).toHaveLength(1);
      expect(seqs(client.events)).toEqual(upTo(seqs(client.events).length));
      const received = durable(client.events).map(({ type, fields }) => ({ ...fields, type }));
      expect(textBySteps(received)).toEqual(['I ask list_agents.', 'The agents are three.']);
      const named = received.flatMap((event) => ('usage_record_id' in event ? [event.usage_record_id] : []));
      await until(async () => (await billedRecords(userId, stack.addresses)).length === 3, { timeoutMs: 15_000 });
      expect((await billedRecords(userId, stack.addresses)).map(({ id }) => id)).toEqual(named);
    }
    // Two steps each, and the answer once more.
    expect(model.requests).toHaveLength(6);
  }, 90_000);
});
