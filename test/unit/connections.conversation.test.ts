import { describe, expect, it } from '@jest/globals';
import type { RpcMessage } from '../../src/connections/conversation.ts';
import type { Handlers, Speaker } from '../../src/connections/handlers.ts';
import { Inbox, type InboxOwner } from '../../src/connections/inbox.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import type { TollgateError } from '../../src/protocol/errors.ts';
import { silentLogger } from '../support/core.ts';
import { until } from '../support/until.ts';

/** An inbox whose user's limit is as the test says, and whose conversation answers nothing until it is told to. */
function inbox({ refusedMs = 0 } = {}) {
  const heard: string[] = [];
  const asked: RpcMessage[] = [];
  const told: string[] = [];
  const errors: [TollgateError, unknown][] = [];
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const owner: InboxOwner = {
    speaker: { road: 'mcp' } as Speaker,
    closed: false,
    endpoint: '/ws/mcp',
    user: { userId: 'user_1', plan: 'free' },
    reply: () => undefined,
    frame: (frame) => void told.push(frame),
    error: (error, replyTo) => void errors.push([error, replyTo]),
    close: () => undefined,
    holding: (work) => work(),
    spoken: () => undefined,
  };
  const box = new Inbox(
    {
      handlers: {} as Handlers,
      converse: () => ({
        speaks: () => true,
        hear: ({ method }) => void heard.push(method),
        async answer(message) {
          asked.push(message);
          await released;
          return `answer ${message.id}`;
        },
      }),
      messageRate: { knownRefusalMs: () => refusedMs, take: async () => ({ allowed: true, degraded: false }) },
      metrics: new Metrics(),
      logger: silentLogger,
      tracing: NO_TRACING,
    },
    owner,
  );
  const send = (name: string, rpcId?: number) =>
    box.receive({ name, fields: {}, replyTo: rpcId === undefined ? undefined : { rpcId } });
  return { send, heard, asked, told, errors, release: () => release() };
}

describe('a message of the protocol that is spoken beside ours', () => {
  it('is heard while as many requests are under way as may be, so that one of them can be cancelled', async () => {
    const { send, heard, asked, told, errors, release } = inbox();
    for (let id = 1; id <= 9; id++) send('tools/call', id);
    send('notifications/cancelled');
    await until(() => heard.includes('notifications/cancelled'));
    expect([asked.length, errors.map(([{ code }, replyTo]) => [code, replyTo])]).toEqual([
      8,
      [['RATE_LIMITED', { rpcId: 9 }]],
    ]);
    release();
    await until(() => told.length === 8);
  });

  it('is heard also above the message limit; a notification is not told of that, a request is', async () => {
    const { send, heard, asked, errors } = inbox({ refusedMs: 1_000 });
    send('notifications/cancelled');
    send('tools/list', 1);
    await until(() => errors.length === 1);
    expect([heard, asked, errors[0]?.[1]]).toEqual([['notifications/cancelled', 'tools/list'], [], { rpcId: 1 }]);
  });
});
