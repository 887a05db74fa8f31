import { describe, expect, it } from '@jest/globals';
import type { RunRequest } from '../../src/jobs.ts';
import type { Clock } from '../../src/lib/clock.ts';
import type { Logger } from '../../src/lib/logger.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { AcceptedRuns } from '../../src/runs/accepted-runs.ts';
import {
  type AcceptedRun,
  acceptedAs,
  acceptedRun,
  journalFields,
  parseRun,
  storedFields,
} from '../../src/runs/stored-run.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';

const identity = { userId: 'user_1', plan: 'pro', permissions: ['p'], roles: [], featureFlags: { f: true } };
const request: RunRequest = {
  identity: identity as unknown as Identity,
  connectionId: 'ws_1',
  requestId: 'req_1',
  runId: 'run_1',
  threadId: 'thread_1',
  agent: undefined,
  message: 'hello',
  transport: 'mcp',
  degraded: true,
};

function claimed(fields: Record<string, string>, times = { step: 40, now: 9_000, pausedMs: 500 }) {
  return parseRun({ userId: 'user_1', runId: 'run_1', fields: Object.entries(fields).flat(), ...times });
}

function hashOf(run: AcceptedRun, more: Record<string, string> = {}): Record<string, string> {
  const flat = storedFields(run);
  const pairs = flat.flatMap((name, at) => (at % 2 === 0 ? [[name, flat[at + 1] ?? '']] : []));
  return { ...Object.fromEntries(pairs), thread_id: run.threadId, epoch: '100', accepted_at: '1000', ...more };
}

describe('a stored run', () => {
  it('is claimed with everything that it was accepted with, and can be stored again', () => {
    const clientTools = [{ name: 't', description: 'd', parameters: { type: 'object' } }] as never;
    for (const own of [{}, { clientTools }, { clientTools: [] as never }]) {
      const accepted = acceptedRun({ ...request, ...own }, 'tester');
      const run = claimed(hashOf(accepted));
      expect(run).toMatchObject({ agent: 'tester', message: 'hello', transport: 'mcp', degraded: true });
      expect(run.caller).toEqual({ plan: 'pro', permissions: ['p'], roles: [], featureFlags: { f: true } });
      expect(run.clientTools).toEqual('clientTools' in own ? own.clientTools : []);
      const { userId, runId, threadId, requestId, connectionId, agent, message, transport, caller } = accepted;
      const again = { userId, runId, threadId, requestId, connectionId, agent, message, transport, caller };
      expect(acceptedAs(run)).toMatchObject({ ...again, clientTools: accepted.clientTools });
    }
  });

  it('has waited since its acceptance, less the time in which it waited for input', () => {
    const run = claimed(hashOf(acceptedRun(request, 'tester'), { events: '3', first_seq: '17', cancel: '1' }));
    expect(run).toMatchObject({ waitedMs: 7_500, acceptedAt: 1_000, fencingToken: 100, previousToken: 60 });
    expect(run).toMatchObject({ events: 3, firstSeq: 17, cancelRequested: true });
    const fresh = claimed(hashOf(acceptedRun(request, 'tester')));
    expect(fresh).toMatchObject({ events: 0, firstSeq: 0, cancelRequested: false });
  });

  it('keeps its journal by kind, and restores it under the same names', () => {
    const journal = { 'tool:call_1': 'a', 'tool:x:y': 'b', 'step:1': 'c', 'input:i': '5 {}', 'answer:i': '{}' };
    const run = claimed(hashOf(acceptedRun(request, 'tester'), { ...journal, 'other:z': 'd' }));
    expect([...run.journal]).toEqual([
      ['call_1', 'a'],
      ['x:y', 'b'],
    ]);
    expect([[...run.steps], [...run.inputs], [...run.answers]]).toEqual([[['1', 'c']], [['i', '5 {}']], [['i', '{}']]]);
    expect(journalFields(run)).toEqual(Object.entries(journal).flat());
  });
});

describe('the accepted runs of a node', () => {
  function start(endMs = 60_000) {
    const clock = new ManualClock();
    const kept: [string, number][] = [];
    const failures: Error[] = [];
    const listeners: (() => void)[] = [];
    const redis = {
      on: (_name: string, listener: () => void) => void listeners.push(listener),
      off: (_name: string, listener: () => void) => void listeners.splice(listeners.indexOf(listener), 1),
    };
    const claims = {
      keep: async ({ runId }: AcceptedRun, elapsedMs: number) => {
        kept.push([runId, elapsedMs]);
        const failure = failures.shift();
        if (failure) throw failure;
      },
    };
    const deps = { redis: redis as never, claims, clock: clock as Clock, logger: silentLogger as Logger };
    const accepted = new AcceptedRuns(deps, { endMs });
    const add = (runId: string, size = 0) => {
      accepted.add({ ...acceptedRun({ ...request, runId }, 'a'), message: 'm'.repeat(size) });
    };
    return { clock, kept, failures, listeners, accepted, add };
  }
  const turns = async () => {
    for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
  };

  it('have 16 MiB of characters in all; the oldest are dropped', () => {
    const { accepted, add } = start();
    const half = 8 * 1024 * 1024;
    const own = acceptedRun(request, 'a').caller.length + 'run_1'.length;
    add('run_1', half - own);
    add('run_2', half - own);
    expect(accepted.count).toBe(2);
    // The same run again takes the place of its first entry.
    add('run_2', half - own);
    expect(accepted.count).toBe(2);
    add('run_3', 1);
    expect(accepted.count).toBe(2);
    add('run_4', 3 * half);
    expect(accepted.count).toBe(0);
  });

  it('are dropped when their end is seen, and no other event drops them', () => {
    const { accepted, add } = start();
    add('run_1');
    const entry = (type: string, json: string) => {
      accepted.onEntry({ type, seq: 1, epoch: 'e', timestamp: 't', json });
      return accepted.count;
    };
    expect(entry('agent_thinking', '{"run_id":"run_1"}')).toBe(1);
    expect(entry('agent_completed', '{"run_id":"run_2"}')).toBe(1);
    expect(entry('agent_completed', '{"final_response":"\\"run_id\\":\\"run_1\\""}')).toBe(1);
    expect(entry('agent_failed', '{"seq":1,"run_id":"run_1"}')).toBe(0);
  });

  it('are stored again after a reconnect, while they are at most 80 s old', async () => {
    const { accepted, add, kept, listeners, clock } = start();
    accepted.start();
    add('run_1');
    clock.set(1);
    add('run_2');
    clock.set(80_000);
    listeners[0]?.();
    await turns();
    expect(kept).toEqual([['run_2', 80_000]]);
    expect(accepted.count).toBe(2);
    accepted.stop();
    expect(listeners).toEqual([]);
  });

  it('are checked once at the time of their end, and again if that fails', async () => {
    const { accepted, add, kept, failures, clock } = start(5_000);
    accepted.start();
    add('run_1');
    clock.advance(4_999);
    add('run_2');
    await turns();
    expect(kept).toEqual([]);
    failures.push(new Error('no Redis'));
    clock.advance(1_000);
    await turns();
    expect([kept.length, accepted.count]).toEqual([1, 2]);
    clock.advance(1_000);
    await turns();
    expect([kept.map(([runId]) => runId), accepted.count]).toEqual([['run_1', 'run_1'], 1]);
    accepted.stop();
    clock.advance(60_000);
    await turns();
    expect(kept).toHaveLength(2);
  });

  it('are checked after 78 s at the latest, before an erasure of their user could have deleted them', async () => {
    const { accepted, add, kept, clock } = start(600_000);
    accepted.start();
    add('run_1');
    clock.advance(77_000);
    await turns();
    expect(kept).toEqual([]);
    clock.advance(1_000);
    await turns();
    expect([kept, accepted.count]).toEqual([[['run_1', 78_000]], 0]);
  });
});
