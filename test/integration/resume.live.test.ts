import { beforeAll, describe, expect, it } from '@jest/globals';
import { freshRequestId, runToEnd } from '../support/agent-runs.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { isTerminal, seqs, upTo } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

describe.each(TRANSPORTS)('a resume over %s while events arrive', (transport) => {
  it('brings every event once, in order: older ones before the replay boundary, newer ones after it', async () => {
    const { token } = mintToken({ plan: 'developer' });
    const writer = await openClient({ transport, url: nodeUrl(0), token });
    const epoch = String((await writer.welcome()).epoch);
    await runToEnd(writer);
    let writing = true;
    const writes = (async () => {
      while (writing) await Promise.all([runToEnd(writer), runToEnd(writer)]);
    })();

    const readers: TestClient[] = [];
    for (let round = 0; round < 12; round++) {
      const logPosition = { after: round % 2 ? 0 : 4, epoch };
      const url = nodeUrl(round % 3);
      if (round % 4 < 2) {
        const options =
          transport === 'ws' ? { query: { ...logPosition, after: `${logPosition.after}` } } : { auth: logPosition };
        readers.push(await openClient({ transport, url, token, ...options }));
      } else {
        const reader = await openClient({ transport, url, token });
        reader.send('resume', logPosition);
        readers.push(reader);
      }
      const reader = readers[round] as TestClient;
      await reader.waitFor('resumed');
      const seen = seqs(reader.events).length;
      // Live events have followed the replayed ones.
      await until(() => seqs(reader.events).length > seen + 3);
      await reader.close();
    }
    writing = false;
    await writes;

    for (const [round, { events }] of readers.entries()) {
      const after = round % 2 ? 0 : 4;
      const numbers = seqs(events);
      expect(numbers).toEqual(upTo(after + numbers.length).slice(after));
      const replayEnd = events.findIndex(({ type }) => type === 'resumed');
      const { from, to } = events[replayEnd]?.fields ?? {};
      expect([from, to]).toEqual([after + 1, seqs(events.slice(0, replayEnd)).at(-1)]);
      expect(seqs(events.slice(replayEnd))[0]).toBe(Number(to) + 1);
    }
    expect(seqs(writer.events)).toEqual(upTo(seqs(writer.events).length));
  });

  it('finds the rest of a run that went on while its client was away', async () => {
    const { token } = mintToken();
    const first = await openClient({ transport, url: nodeUrl(0), token });
    const { epoch } = await first.welcome();
    first.send('agent_request', { message: 'How is my workload?', request_id: freshRequestId() });
    const { run_id } = (await first.waitFor('agent_accepted')).fields;
    first.terminate();
    await first.closed;
    const seen = seqs(first.events).at(-1) ?? 0;
    const second = await openClient({ transport, url: nodeUrl(1), token });
    second.send('resume', { after: seen, epoch });
    // The run is fast: its end may have reached the first connection already.
    const ended = () => {
      const all = [...first.events, ...second.events];
      return all.some((event) => isTerminal(event) && event.fields.run_id === run_id);
    };
    await until(ended, { label: 'the end of the run' });
    await second.waitFor('resumed');
    const whole = [...seqs(first.events), ...seqs(second.events)];
    expect(whole).toEqual(upTo(whole.length));
  });
});

describe('a log that has been trimmed', () => {
  let processes: StackProcesses;
  beforeAll(async () => {
    processes = await startStack({ env: { EVENT_LOG_LENGTH: '10' } });
  });

  it.each(TRANSPORTS)(
    'cannot be resumed over %s where events are gone, says where it begins, and goes on live',
    async (transport) => {
      const of = processes.addresses;
      const { token } = mintToken({ plan: 'developer' }, { stack: of });
      const url = nodeUrl(0, of);
      const writer = await openClient({ transport, url, token });
      const { epoch } = await writer.welcome();
      for (let i = 0; i < 10; i++) await runToEnd(writer);
      const head = seqs(writer.events).length;
      expect(seqs(writer.events)).toEqual(upTo(head));

      const reader = await openClient({ transport, url, token });
      reader.send('resume', { after: 1, epoch });
      const { fields } = await reader.waitFor('resume_failed');
      expect(fields).toMatchObject({ reason: 'trimmed', epoch, oldest_seq: expect.any(Number) });
      const oldest = Number(fields.oldest_seq);
      expect(oldest).toBeGreaterThan(2);
      expect(oldest).toBeLessThanOrEqual(head - 9);
      await runToEnd(reader);
      expect(seqs(reader.events)).toEqual(upTo(head + seqs(reader.events).length).slice(head));

      const logPosition = { after: 1, epoch: String(epoch) };
      const options = transport === 'ws' ? { query: { ...logPosition, after: '1' } } : { auth: logPosition };
      const late = await openClient({ transport, url, token, ...options });
      const refused = await late.waitFor('resume_failed');
      expect(refused.fields.reason).toBe('trimmed');
      const from = late.mark();
      late.send('resume', { after: Number(refused.fields.oldest_seq) - 1, epoch });
      const { fields: replayEnd } = await late.waitFor('resumed', { from });
      expect(replayEnd.from).toBe(refused.fields.oldest_seq);
      const replayed = seqs(late.events.slice(from));
      expect(replayed).toEqual(upTo(Number(replayEnd.to)).slice(Number(replayEnd.from) - 1));
    },
  );
});
