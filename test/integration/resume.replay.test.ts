import { describe, expect, it } from '@jest/globals';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { MAX_RESULT_BYTES } from '../../src/tools/built-in/result.ts';
import { runToEnd } from '../support/agent-runs.ts';
import { type ClientOptions, openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { LOG_BYTES, thinking } from '../support/core.ts';
import { openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { durable, seqs, upTo } from '../support/runs.ts';
import { mintToken } from '../support/tokens.ts';

interface Position {
  readonly after: number;
  readonly epoch: string;
}

/** The resume position in a client's handshake. */
function atHandshake(transport: 'ws' | 'socketio', { after, epoch }: Position): Partial<ClientOptions> {
  return transport === 'ws' ? { query: { after: `${after}`, epoch } } : { auth: { after, epoch } };
}

/** Returns the `seq` of the events before and after the replay boundary. */
function aroundReplayEnd(client: TestClient): { before: number[]; after: number[] } {
  const replayEnd = client.events.findIndex(({ type }) => type === 'resumed');
  return { before: seqs(client.events.slice(0, replayEnd)), after: seqs(client.events.slice(replayEnd)) };
}

const range = (from: number, to: number) => upTo(to).slice(from - 1);

describe.each(TRANSPORTS)('a resume over %s', (transport) => {
  /** A user with a log of several events, received by a first client, which then disconnects. */
  async function history() {
    const { token } = mintToken({ plan: 'enterprise' });
    const first = await openClient({ transport, token });
    const { epoch } = await first.welcome();
    await runToEnd(first);
    await runToEnd(first, { message: 'Is the system healthy?' });
    const seen = durable(first.events);
    await first.close();
    const connect = (node: number, options: Partial<ClientOptions> = {}) => {
      return openClient({ transport, url: nodeUrl(node), token, ...options });
    };
    return { seen, head: seen.length, epoch: String(epoch), connect };
  }

  it('in band brings every later event unchanged, in order, then the replay boundary', async () => {
    const { seen, head, epoch, connect } = await history();
    const client = await connect(0);
    expect(await client.welcome()).toMatchObject({ epoch, seq: head });
    client.send('resume', { after: 3, epoch });
    const { fields } = await client.waitFor('resumed');
    expect(fields).toMatchObject({ from: 4, to: head });
    expect(durable(client.events).map(({ type, fields: f }) => [type, f])).toEqual(
      seen.slice(3).map(({ type, fields: f }) => [type, f]),
    );
    expect(client.events.map(({ type }) => type)).toEqual([
      'connection_established',
      ...seen.slice(3).map(({ type }) => type),
      'resumed',
    ]);
  });

  it('at the handshake brings the same, after the welcome', async () => {
    const { seen, head, epoch, connect } = await history();
    const client = await connect(0, atHandshake(transport, { after: 3, epoch }));
    const { fields } = await client.waitFor('resumed');
    expect(fields).toMatchObject({ from: 4, to: head });
    expect(client.events.map(({ type }) => type)).toEqual([
      'connection_established',
      ...seen.slice(3).map(({ type }) => type),
      'resumed',
    ]);
    expect(aroundReplayEnd(client)).toEqual({ before: range(4, head), after: [] });
  });

  it('on another node brings the same, in band and at the handshake', async () => {
    const { head, epoch, connect } = await history();
    const position = { after: 2, epoch };
    const atOnce = await connect(1, atHandshake(transport, position));
    const later = await connect(2);
    later.send('resume', { ...position });
    for (const client of [atOnce, later]) {
      expect((await client.waitFor('resumed')).fields).toMatchObject({ from: 3, to: head });
      expect(aroundReplayEnd(client)).toEqual({ before: range(3, head), after: [] });
    }
  });

  it('of the largest possible events completes: a client that reads is not closed as slow', async () => {
    const { token, userId } = mintToken({ plan: 'enterprise' });
    const { redis, keys } = await openLeases();
    const options = { length: 1_000, maxAgeMs: 3_600_000, maxBytes: 2 * LOG_BYTES };
    const log = new UserLogWriter({ redis, keys, metrics: new Metrics(), tracing: NO_TRACING }, options);
    const events = Array.from({ length: 15 }, () => thinking('x'.repeat(MAX_RESULT_BYTES)));
    for (let at = 0; at < 10; at++) await log.append({ userId, events });
    const client = await openClient({ transport, token });
    const { epoch } = await client.welcome();
    client.send('resume', { after: 0, epoch });
    expect((await client.waitFor('resumed', { timeoutMs: 15_000 })).fields).toMatchObject({ from: 1, to: 150 });
    expect(seqs(client.events)).toEqual(upTo(150));
  });

  it('continues live after the replay boundary, without a gap and without a repetition', async () => {
    const { head, epoch, connect } = await history();
    const client = await connect(1, atHandshake(transport, { after: 0, epoch }));
    await client.waitFor('resumed');
    await runToEnd(client);
    const { before, after } = aroundReplayEnd(client);
    expect(before).toEqual(upTo(head));
    expect(after).toEqual(range(head + 1, head + after.length));
    expect(after.length).toBeGreaterThanOrEqual(5);
  });

  it('from the head brings only the replay boundary', async () => {
    const { head, epoch, connect } = await history();
    const atOnce = await connect(1, atHandshake(transport, { after: head, epoch }));
    const later = await connect(2);
    later.send('resume', { after: head, epoch });
    for (const client of [atOnce, later]) {
      expect((await client.waitFor('resumed')).fields).toMatchObject({ from: head + 1, to: head });
    }
    for (const client of [atOnce, later]) {
      await runToEnd(client);
      expect(aroundReplayEnd(client).before).toEqual([]);
      expect(seqs(client.events)[0]).toBe(head + 1);
    }
  });

  it('of a user without events brings only the replay boundary', async () => {
    const { token } = mintToken();
    const client = await openClient({ transport, token });
    const { epoch } = await client.welcome();
    client.send('resume', { after: 0, epoch });
    expect((await client.waitFor('resumed')).fields).toMatchObject({ from: 1, to: 0 });
  });

  it('can be asked for again on the same connection', async () => {
    const { head, epoch, connect } = await history();
    const client = await connect(0);
    for (const after of [0, 5]) {
      const from = client.mark();
      client.send('resume', { after, epoch });
      await client.waitFor('resumed', { from });
      expect(seqs(client.events.slice(from))).toEqual(range(after + 1, head));
    }
  });

  it.each([
    ['of another epoch', (head: number) => ({ after: Math.min(2, head), epoch: 'epoch_of_another_time' })],
    ['beyond the head', (head: number, epoch: string) => ({ after: head + 1, epoch })],
  ])('to a position %s fails with epoch_changed, and the live stream continues', async (_what, logPosition) => {
    const { head, epoch, connect } = await history();
    const position = logPosition(head, epoch);
    const atOnce = await connect(0, atHandshake(transport, position));
    const later = await connect(1);
    later.send('resume', position);
    for (const client of [atOnce, later]) {
      const { fields } = await client.waitFor('resume_failed');
      expect(fields).toMatchObject({ reason: 'epoch_changed', oldest_seq: 1, epoch });
    }
    await runToEnd(atOnce);
    await later.waitFor('agent_completed');
    for (const client of [atOnce, later]) {
      expect(seqs(client.events)).toEqual(range(head + 1, head + seqs(client.events).length));
      expect(client.events.map(({ type }) => type)).not.toContain('resumed');
    }
  });

  it.each([{}, { after: 1 }, { epoch: 'e' }, { after: -1, epoch: 'e' }, { after: 'x', epoch: 'e' }])(
    'from %j is FORMAT_ERROR, and the connection stays',
    async (fields) => {
      const { connect } = await history();
      const client = await connect(0);
      client.send('resume', { ...fields, request_id: 'req_1' });
      expect((await client.waitFor('error')).fields).toMatchObject({ code: 'FORMAT_ERROR', request_id: 'req_1' });
      client.send('ping');
      await client.waitFor('pong');
    },
  );

  it('is not made for who does not ask: a new connection begins at the head', async () => {
    const { head, connect } = await history();
    const client = await connect(2);
    await runToEnd(client);
    expect(seqs(client.events)[0]).toBe(head + 1);
  });
});

describe('a resume over Socket.IO', () => {
  it('is acknowledged, and sends its replay boundary as an event too, in order', async () => {
    const { token } = mintToken();
    const client = await openClient({ transport: 'socketio', token });
    const { epoch } = await client.welcome();
    const { events } = await runToEnd(client);
    const from = client.mark();
    const reply = await client.call('resume', { after: 2, epoch });
    expect(reply).toMatchObject({ ok: true, type: 'resumed', from: 3, to: events.length });
    await client.waitFor('resumed', { from });
    expect(client.events.slice(from).map(({ type }) => type)).toEqual([
      ...events.slice(2).map(({ type }) => type),
      'resumed',
    ]);
    expect(await client.call('resume', { after: 2, epoch: 'x' })).toMatchObject({
      ok: true,
      type: 'resume_failed',
      reason: 'epoch_changed',
    });
  });
});
