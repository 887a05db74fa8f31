import { expect, it } from '@jest/globals';
import { EventLog } from '../../src/events/event-log.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Keys } from '../../src/redis/keys.ts';
import { Runs } from '../../src/runs/runs.ts';
import { NO_QUEUE, startCore } from '../support/core.ts';
import { openStream } from '../support/event-stream.ts';
import { nodeUrl } from '../support/nodes.ts';
import { RUN_AGENTS, startRun } from '../support/run-nodes.ts';
import { stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

it('an event or control message that a node cannot read ends at most the stream that shows it', async () => {
  const core = await startCore();
  const keys = new Keys(stack().keyPrefix);
  const { token, userId } = mintToken({ plan: 'pro' });
  const runs = new Runs(
    { ...core, keys, queue: NO_QUEUE, agents: RUN_AGENTS, clock: systemClock },
    { timeoutMs: 60_000 },
  );
  const { run_id } = await startRun(runs, { userId, plan: 'pro', threadId: 'thread_1' });
  const other = await openStream(`${nodeUrl(0)}/v1/events`, { token: mintToken().token }).opened();
  const one = await openStream(`${nodeUrl(0)}/v1/runs/${run_id}/events`, { token }).opened();
  const { epoch, head } = await new EventLog({ ...core, keys }).read(
    userId,
    { epoch: undefined, after: 0, delivered: undefined },
    1,
  );
  const { channel } = keys.user(userId);
  await core.redis.spublish(channel, 'c{');
  await core.redis.spublish(
    channel,
    `e${epoch} ${head + 1} agent_thinking 2026-12-01T00:00:00.000Z {"run_id":"${run_id}",`,
  );
  await one.ended();
  expect(one.events.at(-1)?.data).toMatchObject({ type: 'error', code: 'INTERNAL_ERROR' });
  expect(other.end).toBeUndefined();
  expect((await openStream(`${nodeUrl(0)}/v1/events`, { token }).opened()).status).toBe(200);
});
