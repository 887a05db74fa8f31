import { describe, expect, it } from '@jest/globals';
import { Connection, type ConnectionDeps } from '../../src/connections/connection.ts';
import { Dispatcher, type DispatcherDeps } from '../../src/connections/dispatcher.ts';
import { Handshake } from '../../src/connections/handshake.ts';
import { CLOSE_HANDLING_MS } from '../../src/connections/limits.ts';
import type { Transport } from '../../src/connections/transport.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { until } from '../support/until.ts';

/** An unauthenticated connection with two pings, the first of which is answered only when the test says so. */
async function withWaitingPings() {
  const clock = new ManualClock();
  const metrics = new Metrics();
  const sent: string[] = [];
  const finished: Promise<void>[] = [];
  const first = Promise.withResolvers<void>();
  let handled = 0;
  const ping = {
    async handle() {
      handled += 1;
      if (handled === 1) await first.promise;
      return { type: 'pong', fields: {} };
    },
  };
  const dispatching = { handlers: { ping }, metrics, logger: silentLogger, tracing: NO_TRACING };
  const deps = {
    clock,
    metrics,
    logger: silentLogger,
    dispatcher: new Dispatcher(dispatching as unknown as DispatcherDeps),
    welcome: { established: () => ({}) },
    createRpcDispatcher: () => undefined,
    hub: { update: () => undefined, finishing: (work: Promise<void>) => void finished.push(work) },
    limits: { heartbeatMs: 1_000, idleTimeoutMs: 5_000, maxAgeMs: 0 },
  } as unknown as ConnectionDeps;
  const transport: Transport = {
    endpoint: '/ws',
    format: 'regular_json',
    bufferedBytes: 0,
    progress: '',
    send: (type) => void sent.push(type),
    sendEntry: () => undefined,
    sendError: ({ code }) => void sent.push(code),
    ping: () => undefined,
    close: () => undefined,
  };
  const handshake = new Handshake(
    { authFailureLimiter: { blockedForMs: () => 0, recordFailure: () => undefined }, metrics, clock },
    { endpoint: '/ws', address: '192.0.2.1', deadlineMs: 10_000, released: () => undefined },
  );
  const connection = new Connection(deps, transport, handshake);
  await connection.open(undefined, { resumeFrom: undefined, trace: undefined });
  for (let i = 0; i < 2; i++) connection.receive({ name: 'ping', fields: {}, replyTo: undefined });
  await until(() => handled === 1);
  connection.onClose();
  return { clock, connection, sent, finished: () => Promise.all(finished), handled: () => handled, first };
}

describe('messages that wait when the socket closes', () => {
  it('are handled before the connection is closed, and their replies are dropped', async () => {
    const { connection, sent, finished, handled, first } = await withWaitingPings();
    expect([connection.disconnected, connection.closed]).toEqual([true, false]);
    first.resolve();
    await finished();
    expect([handled(), connection.closed, sent]).toEqual([2, true, ['connection_established']]);
  });

  it('are dropped when an earlier one takes longer than the bound', async () => {
    const { clock, connection, finished, handled, first } = await withWaitingPings();
    clock.advance(CLOSE_HANDLING_MS);
    await finished();
    expect(connection.closed).toBe(true);
    first.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    expect(handled()).toBe(1);
  });

  it('are followed by no message that arrives later', async () => {
    const { connection, finished, handled, first } = await withWaitingPings();
    connection.receive({ name: 'ping', fields: {}, replyTo: undefined });
    first.resolve();
    await finished();
    expect(handled()).toBe(2);
  });
});
