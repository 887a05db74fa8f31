import { describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS, type TransportName } from '../support/clients.ts';
import { isTerminal, seqs, upTo } from '../support/runs.ts';
import { type StackProcesses, useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

const NODES = 3;
/** `npm run faults` sets fifty. */
const ROUNDS = Number(process.env.FAULT_ROUNDS ?? 2);

const processes = useStack({ gateways: NODES, workers: 1, env: { MESSAGE_RATE_PER_MINUTE: '1000' } });

/**
 * A client starts a run on one node, which is killed after the first event of the run. The client resumes on the next
 * node from its last event, while the run continues.
 */
async function round(transport: TransportName, stack: StackProcesses, number: number): Promise<void> {
  const victim = stack.gateways[number % NODES];
  const refuge = stack.gateways[(number + 1) % NODES];
  if (!victim || !refuge) throw new Error('the stack has too few gateways');
  const { token, userId } = mintToken({}, { stack: stack.addresses });

  const before = await openClient({ transport, token, url: victim.url });
  const { epoch } = await before.welcome();
  const runs = [1, 2, 3].map((run) => `${userId}_${run}`);
  for (const request_id of runs) before.send('agent_request', { message: 'How is my workload doing?', request_id });
  await before.waitFor('agent_started');
  await victim.kill('SIGKILL');
  await before.closed;
  const seen = seqs(before.events);
  const after = seen.at(-1) ?? 0;

  const position =
    transport === 'ws' ? { query: { after: `${after}`, epoch: `${epoch}` } } : { auth: { after, epoch } };
  const rest = await openClient({ transport, token, url: refuge.url, ...position });
  await rest.waitFor('resumed');
  // The client repeats requests that were lost with the node; the request id prevents a second run.
  for (const request_id of runs) rest.send('agent_request', { message: 'How is my workload doing?', request_id });
  for (const request_id of runs) {
    const ended = [...before.events].some((event) => isTerminal(event) && event.fields.request_id === request_id);
    if (!ended) await rest.waitFor((event) => isTerminal(event) && event.fields.request_id === request_id);
  }

  const all = [...seen, ...seqs(rest.events)];
  expect(all).toEqual(upTo(all.length));
  const ends = [...before.events, ...rest.events].filter(isTerminal).map(({ fields }) => fields.request_id);
  expect(ends.toSorted()).toEqual(runs);
  await rest.close();
  await victim.start();
}

describe.each(TRANSPORTS)('a client over %s whose node is killed in the middle of a run', (transport) => {
  it(
    `has every event once, in order, after it resumed on another node (${ROUNDS} rounds)`,
    async () => {
      for (let number = 0; number < ROUNDS; number++) await round(transport, processes(), number);
    },
    30_000 + ROUNDS * 10_000,
  );
});
