import { expect, it } from '@jest/globals';
import type { ConnectionContext, MessageContext } from '../../src/connections/connection-context.ts';
import { ChatSocket } from '../../src/frontends/ai-sdk/chat-socket.ts';
import type { LocatedRun } from '../../src/jobs.ts';
import { NO_MESSAGE_LIMIT } from '../../src/limits/message-limit.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { RedisUnavailable } from '../../src/redis/errors.ts';

const RUN: LocatedRun = {
  ...{ runId: 'run_1', status: 'running', requestId: 'req_1', threadId: 'thread_1', agent: 'assistant' },
  ...{ epoch: 'epoch_1', oldest: 1, after: 0, endedAtSeq: undefined, endedMsAgo: undefined },
};

it('a stream whose log cannot be read leaves room for another, and gets no later event', async () => {
  const frames: { readonly type: string; readonly requestId: string }[] = [];
  const socket = new ChatSocket({
    runs: { start: () => Promise.reject(new Error('no start')), locate: async () => RUN },
    inputs: { answer: () => Promise.reject(new Error('no answer')) },
    limits: { maxMessageBytes: 1_000 },
    sendFrame: (frame) => frames.push(JSON.parse(frame)),
  });
  const connection = { resume: () => Promise.reject(new RedisUnavailable()) } as unknown as ConnectionContext;
  const ctx: MessageContext = { connection, identity: { userId: 'user' } as Identity, limit: NO_MESSAGE_LIMIT };
  for (let at = 0; at < 20; at++) {
    const answer = socket.answer(ctx, { id: `request_${at}`, method: 'resume', params: { id: 'chat' } });
    await expect(answer).rejects.toBeInstanceOf(RedisUnavailable);
  }
  const json = '{"run_id":"run_1","message":"hello","timestamp":"2026-12-01T00:00:00.000Z"}';
  socket.deliver({ type: 'agent_started', seq: 1, epoch: 'epoch_1', timestamp: '2026-12-01T00:00:00.000Z', json });
  expect(frames.filter(({ type }) => type !== 'start')).toEqual([]);
});
