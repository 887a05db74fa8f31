import { describe, expect, it } from '@jest/globals';
import type { ConnectionContext, RpcDispatcher, RpcMessage } from '../../src/connections/connection-context.ts';
import { Dispatcher } from '../../src/connections/dispatcher.ts';
import type { Handlers } from '../../src/connections/handlers.ts';
import { InputCounters } from '../../src/connections/input-counters.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { SerialQueue } from '../../src/lib/serial-queue.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import type { ReplyTo } from '../../src/protocol/dialects.ts';
import type { TollgateError } from '../../src/protocol/errors.ts';
import { silentLogger } from '../support/core.ts';
import { until } from '../support/until.ts';

/** A dispatcher with a scripted message limit, whose handler answers only when the test says so. */
function dispatcher({ refusedMs = 0 } = {}) {
  const observed: string[] = [];
  const requested: RpcMessage[] = [];
  const sent: string[] = [];
  const errors: [TollgateError, unknown][] = [];
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const rpc: RpcDispatcher = {
    handles: () => true,
    observe: ({ method }) => void observed.push(method),
    async answer(_ctx, message) {
      requested.push(message);
      await released;
      return `answer ${message.id}`;
    },
  };
  const writer = {
    sendFrame: (frame: string) => void sent.push(frame),
    sendError: (error: TollgateError, replyTo: ReplyTo) => void errors.push([error, replyTo]),
  };
  const connection = {
    closed: false,
    endpoint: '/ws/mcp',
    identity: { userId: 'user_1', plan: 'free' },
    counters: new InputCounters(),
    endResumeGrace: () => undefined,
    writer,
    rpc,
  } as unknown as ConnectionContext;
  const handling = new Dispatcher({
    handlers: {} as Handlers,
    messageLimiter: {
      blockedInMemoryMs: () => refusedMs,
      takeCounted: () => true,
      consume: () => ({ decision: Promise.resolve({ allowed: true, degraded: false }), counterAtMost: 30 }),
    },
    metrics: new Metrics(),
    refusals: { refused: () => undefined },
    logger: silentLogger,
    tracing: NO_TRACING,
  });
  // As in a connection: one message after the other.
  const queue = new SerialQueue(64, { onTaskFailed: (error) => expect(error).toBeUndefined() });
  const send = (name: string, rpcId?: number) => {
    const message = { name, fields: {}, replyTo: rpcId === undefined ? undefined : { rpcId } };
    queue.add(() => handling.dispatch(connection, message));
  };
  return { send, observed, requested, sent, errors, release: () => release() };
}

describe('a message of the protocol that is spoken beside ours', () => {
  it('is processed at the limit of requests in flight, so that one of them can be cancelled', async () => {
    const { send, observed, requested, sent, errors, release } = dispatcher();
    for (let id = 1; id <= 9; id++) send('tools/call', id);
    send('notifications/cancelled');
    await until(() => observed.includes('notifications/cancelled'));
    expect([requested.length, errors.map(([{ code }, replyTo]) => [code, replyTo])]).toEqual([
      8,
      [['RATE_LIMITED', { rpcId: 9 }]],
    ]);
    release();
    await until(() => sent.length === 8);
  });

  it('is processed above the message limit too; a request gets an error, a notification does not', async () => {
    const { send, observed, requested, errors } = dispatcher({ refusedMs: 1_000 });
    send('notifications/cancelled');
    send('tools/list', 1);
    await until(() => errors.length === 1);
    expect([observed, requested, errors[0]?.[1]]).toEqual([
      ['notifications/cancelled', 'tools/list'],
      [],
      { rpcId: 1 },
    ]);
  });
});
