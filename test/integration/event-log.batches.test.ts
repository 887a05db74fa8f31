import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { AgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { Runs } from '../../src/runs/runs.ts';
import type { ClaimedRun } from '../../src/runs/stored-run.ts';
import { type Core, NO_QUEUE, startCore, thinking } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { freshUserId } from '../support/tokens.ts';

let core: Core;
let runs: Runs;
let claims: RunClaims;
let monitored: MonitoredAppends;

beforeAll(async () => {
  core = await startCore();
  const agents = new AgentCatalogue([{ name: 'a', description: 'a', tools: ['t'] }], 'a');
  runs = new Runs({ ...core, queue: NO_QUEUE, agents, clock: systemClock }, { timeoutMs: 45_000 });
  claims = new RunClaims({ ...core, agents }, { timeoutMs: 45_000 });
  monitored = await MonitoredAppends.start(core);
});

/** Counts the appending scripts of this file by MONITOR, on a socket of its own: see bench/lib/script-monitor.ts. */
class MonitoredAppends {
  readonly #core: Core;
  readonly #marks = new Map<string, () => void>();
  #scripts = 0;

  private constructor(of: Core, socket: Socket) {
    this.#core = of;
    createInterface({ input: socket }).on('line', (line) => {
      const isScript = /"eval(?:sha)?"/i.test(line.slice(0, 80)) && !line.slice(0, 80).includes(' lua]');
      if (isScript && line.includes(of.keys.prefix) && line.includes('agent_thinking')) this.#scripts += 1;
      for (const [mark, resolve] of this.#marks) if (line.includes(mark)) resolve();
    });
  }

  static async start(of: Core): Promise<MonitoredAppends> {
    const { hostname, port } = new URL(testRedisUrl());
    const socket = connect(Number(port), hostname);
    closeAfter('file', () => socket.destroy());
    await once(socket, 'connect');
    const monitored = new MonitoredAppends(of, socket);
    socket.write('MONITOR\r\n');
    // The reply to MONITOR: from here on every command is reported.
    await once(socket, 'data');
    return monitored;
  }

  /** Runs `work` and returns the number of appending scripts that it sent. */
  async scriptsOf(work: () => Promise<unknown>): Promise<number> {
    await this.#isSeen();
    const before = this.#scripts;
    await work();
    await this.#isSeen();
    return this.#scripts - before;
  }

  /** Resolves when MONITOR has reported every command so far. */
  async #isSeen(): Promise<void> {
    const mark = `mark-${freshUserId()}`;
    const seen = new Promise<void>((resolve) => this.#marks.set(mark, resolve));
    await this.#core.redis.echo(mark);
    await seen;
    this.#marks.delete(mark);
  }
}

async function claimed(userId = freshUserId()): Promise<ClaimedRun> {
  const identity = { userId, plan: 'pro', permissions: [], roles: [], featureFlags: {} } as unknown as Identity;
  const ids = { connectionId: 'c', requestId: newId('req'), runId: newId('run'), threadId: 'thread_1' };
  const request = { ...ids, identity, agent: undefined, message: 'm', transport: 'websocket', degraded: false };
  await runs.start(request, { allowed: Promise.resolve(), messages: 30 });
  const claim = await claims.claim(userId, ids.runId);
  if (claim.outcome !== 'claimed') throw new Error(`the run is ${claim.outcome}`);
  return claim.run;
}

const users = (count: number) => Array.from({ length: count }, () => freshUserId());
const append = (userId: string, text = 'x') => core.log.append({ userId, events: [thinking(text)] });

function appendTo({ userId, runId, fencingToken }: ClaimedRun, eventsInLog: number, text = 'x') {
  return core.log.append({ userId, events: [thinking(text)], run: { runId, fencingToken, eventsInLog } });
}

async function thoughts(userId: string): Promise<unknown[]> {
  const { epoch } = await core.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
  const { entries } = await core.eventLog.read(userId, { epoch, after: 0, delivered: undefined }, 100);
  return entries.map(({ json }) => JSON.parse(json).thought);
}

describe('appends of several users at the same time', () => {
  it('share a script while one is in flight, and one alone is sent at once', async () => {
    const together = users(20);
    expect(await monitored.scriptsOf(() => Promise.all(together.map((userId) => append(userId))))).toBe(2);
    for (const userId of together) expect(await thoughts(userId)).toEqual(['x']);
    expect(await monitored.scriptsOf(async () => void (await append(freshUserId())))).toBe(1);
  });

  it('are split into scripts of a bounded number of appends and events', async () => {
    expect(await monitored.scriptsOf(() => Promise.all(users(80).map((userId) => append(userId))))).toBe(4);
    const many = (userId: string) => {
      return core.log.append({ userId, events: Array.from({ length: 40 }, () => thinking('x')) });
    };
    expect(await monitored.scriptsOf(() => Promise.all(users(4).map(many)))).toBe(4);
  });

  it('keep the order of each user', async () => {
    const [one = '', other = ''] = users(2);
    const order = Array.from({ length: 30 }, (_, at) => `${at}`);
    await Promise.all(order.flatMap((text) => [append(one, text), append(other, text)]));
    expect(await thoughts(one)).toEqual(order);
    expect(await thoughts(other)).toEqual(order);
  });

  it('fail one by one: a key of a wrong type costs no other user an event', async () => {
    const [first = '', before = '', broken = '', after = ''] = users(4);
    await core.redis.set(core.keys.user(broken).log, 'not a stream');
    const results = await Promise.allSettled([first, before, broken, after].map((userId) => append(userId)));
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
    expect(results[2]).toMatchObject({ reason: { message: expect.stringContaining('WRONGTYPE') } });
    for (const userId of [before, after]) expect(await thoughts(userId)).toEqual(['x']);
  });

  it('are fenced, repeated and refused one by one, and report a cancel request to its run only', async () => {
    const [owned, taken, repeated, cancelled] = await Promise.all([claimed(), claimed(), claimed(), claimed()]);
    const [ended, lost] = await Promise.all([claimed(), claimed()]);
    await claims.claim(taken.userId, taken.runId);
    await appendTo(repeated, 0);
    await core.redis.hset(core.keys.user(cancelled.userId).run(cancelled.runId), 'cancel', 1);
    await core.log.append({
      ...{ userId: ended.userId, events: [thinking('end')], ends: 'agent_failed' },
      run: { ...ended, eventsInLog: 0 },
    });
    await core.redis.del(core.keys.user(lost.userId).run(lost.runId));
    const results = await Promise.all([
      append(freshUserId()),
      ...[owned, taken, repeated, cancelled].map((run) => appendTo(run, 0)),
      appendTo(ended, 1),
      appendTo(lost, 0),
    ]);
    expect(results.slice(1)).toEqual([
      { outcome: 'appended', seq: 1, cancelRequested: false },
      { outcome: 'fenced' },
      { outcome: 'repeated', seq: 1, cancelRequested: false },
      { outcome: 'appended', seq: 1, cancelRequested: true },
      { outcome: 'finished' },
      { outcome: 'behind' },
    ]);
    expect(await thoughts(taken.userId)).toEqual([]);
    expect(await thoughts(repeated.userId)).toEqual(['x']);
  });

  it('store the journal entries of their events', async () => {
    const [first, second] = [await claimed(), await claimed()];
    const journaled = ({ userId, runId, fencingToken }: ClaimedRun, name: string) => {
      const event = { ...thinking('x'), journal: { field: `step:${name}`, value: `{"${name}":1}` } };
      const events = [event, thinking('y')];
      return core.log.append({ userId, events, run: { runId, fencingToken, eventsInLog: 0 } });
    };
    await Promise.all([append(freshUserId()), journaled(first, 'a'), journaled(second, 'b')]);
    const again = await claims.claim(second.userId, second.runId);
    expect(again).toMatchObject({ outcome: 'claimed', run: { events: 2, steps: new Map([['b', '{"b":1}']]) } });
    expect(await thoughts(first.userId)).toEqual(['x', 'y']);
  });
});
