import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, it } from '@jest/globals';
import { Tollgate, type TollgateOptions } from '../../packages/client/src/tollgate.ts';
import { ScriptedTransport } from '../support/scripted-transport.ts';
import { until } from '../support/until.ts';

/** Node has Web Locks and BroadcastChannel, so several clients of this process are like several tabs. */
const tabs: Tollgate[] = [];
afterEach(() => {
  for (const tab of tabs.splice(0)) tab.close();
});

/** Each test has a user of its own, as the tabs of others must not affect it. */
function browser() {
  const user = randomUUID();
  const transport = new ScriptedTransport();
  const open = (options: Partial<TollgateOptions> = {}) => {
    const url = 'http://gateway.test';
    const shared = { transport: transport.open, shareTabs: user, backoff: { firstMs: 10, maxMs: 10 } };
    const tab = new Tollgate({ url, getToken: () => 'token', ...shared, ...options });
    tabs.push(tab);
    const seqs: number[] = [];
    const noise: string[] = [];
    tab.on('event', ({ seq }) => seqs.push(seq));
    tab.on('notice', ({ type }) => noise.push(type));
    tab.on('error', ({ code }) => noise.push(code));
    tab.connect();
    return { tab, seqs, noise, isConnected: () => tab.state === 'connected' };
  };
  /** Sends the events from `first` to `last` over the current connection. */
  const emit = (first: number, last = first) => {
    for (let seq = first; seq <= last; seq++) transport.current.message('agent_thinking', { seq });
  };
  return { user, transport, open, emit };
}

/** Opens a tab that leads, and `others` that share its connection. */
async function openTabs(others: number) {
  const { transport, open, ...rest } = browser();
  const first = open();
  await until(() => transport.connections.length === 1);
  const more = Array.from({ length: others }, () => open());
  transport.current.welcome();
  await until(() => [first, ...more].every(({ isConnected }) => isConnected()));
  return { transport, open, first, more, all: [first, ...more], ...rest };
}

describe('tabs that share a connection', () => {
  it('open one, receive every event once, and only their own answers', async () => {
    const { transport, all, emit } = await openTabs(2);
    emit(1, 3);
    await until(() => all.every(({ seqs }) => seqs.length === 3));
    const answers = all.map(({ tab }) => tab.usage());
    const asked = () => transport.current.sent.filter(({ type }) => type === 'usage_summary');
    await until(() => asked().length === 3);
    for (const [index, { fields }] of asked().entries()) {
      transport.current.message('usage_summary', { request_id: fields.request_id, index });
    }
    expect((await Promise.all(answers)).map(({ index }) => index).sort()).toEqual([0, 1, 2]);
    transport.current.message('published', { text: 'to all' });
    await until(() => all.every(({ noise }) => noise.length === 1));
    expect(all.map(({ seqs, noise }) => [...seqs, ...noise])).toEqual(all.map(() => [1, 2, 3, 'published']));
    expect(transport.connections).toHaveLength(1);
  });

  it('elect another leader when theirs closes, which resumes without a gap or a repetition', async () => {
    const { transport, first, more, emit } = await openTabs(2);
    emit(1, 2);
    await until(() => more.every(({ seqs }) => seqs.length === 2));
    const pending = more[0]?.tab.usage();
    first.tab.close();
    await until(() => transport.connections.length === 2);
    expect(transport.current.options.position).toEqual({ after: 2, epoch: 'e1' });
    transport.current.welcome({ seq: 4 });
    emit(3, 4);
    transport.current.message('resumed', { from: 2, to: 4, epoch: 'e1' });
    await until(() => more.every(({ isConnected }) => isConnected()));
    // The other tab attached at its own position.
    if (transport.current.last('resume')) {
      emit(3, 4);
      transport.current.message('resumed', { from: 2, to: 4, epoch: 'e1' });
    }
    emit(5);
    await until(() => more.every(({ seqs }) => seqs.at(-1) === 5));
    for (const { seqs } of more) expect(seqs).toEqual([1, 2, 3, 4, 5]);
    await until(() => transport.current.last('usage_summary') !== undefined);
    transport.current.message('usage_summary', { request_id: transport.current.last('usage_summary')?.request_id });
    await pending;
  });

  it('start at the head when they open later, or at the position that they stored', async () => {
    const { transport, open, first, emit } = await openTabs(0);
    emit(1, 5);
    await until(() => first.seqs.length === 5);
    const later = open();
    await until(later.isConnected);
    const stored = JSON.stringify({ after: 3, epoch: 'e1' });
    const restored = open({ storage: { getItem: () => stored, setItem: () => {} } });
    await until(() => transport.current.last('resume') !== undefined);
    expect(transport.current.last('resume')).toEqual({ after: 3, epoch: 'e1' });
    emit(4, 5);
    transport.current.message('resumed', { from: 3, to: 5, epoch: 'e1' });
    emit(6);
    await until(() => [first, later, restored].every(({ seqs }) => seqs.at(-1) === 6));
    expect([first.seqs, later.seqs, restored.seqs]).toEqual([[1, 2, 3, 4, 5, 6], [6], [4, 5, 6]]);
  });

  it('report a failed resume to the tab that asked only', async () => {
    const { transport, open, first, emit } = await openTabs(0);
    emit(1, 5);
    const lost: string[] = [];
    first.tab.on('lost', (reason) => lost.push(`first: ${reason}`));
    const stored = JSON.stringify({ after: 1, epoch: 'e0' });
    const restored = open({ storage: { getItem: () => stored, setItem: () => {} } });
    restored.tab.on('lost', (reason) => lost.push(`restored: ${reason}`));
    await until(() => transport.current.last('resume') !== undefined);
    transport.current.message('resume_failed', { reason: 'epoch_changed', oldest_seq: 4, epoch: 'e1' });
    await until(() => transport.current.last('resume')?.after === 3);
    emit(4, 5);
    transport.current.message('resumed', { from: 3, to: 5, epoch: 'e1' });
    await until(() => restored.seqs.length === 2);
    expect([first.seqs, restored.seqs, lost]).toEqual([[1, 2, 3, 4, 5], [4, 5], ['restored: epoch_changed']]);
  });

  it('all stay away when the gateway refuses their connection for good', async () => {
    const { transport, all } = await openTabs(1);
    transport.current.close({ code: 'USER_BLOCKED' });
    await until(() => all.every(({ tab }) => tab.state === 'stopped'));
    expect(all.map(({ noise }) => noise)).toEqual([['USER_BLOCKED'], ['USER_BLOCKED']]);
  });

  it('replace a leader that holds the lock and does not answer', async () => {
    const { user, transport, open } = browser();
    let isTaken = false;
    const hung = navigator.locks.request(`tollgate http://gateway.test ${user}`, () => {
      isTaken = true;
      return new Promise(() => {});
    });
    hung.catch(() => {});
    await until(() => isTaken);
    open();
    await until(() => transport.connections.length === 1);
    await expect(hung).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('of different users share none, and an opaque token needs the name of the user', async () => {
    const { transport, open } = browser();
    const jwt = (sub: string) => `h.${Buffer.from(JSON.stringify({ iss: 'i', sub })).toString('base64url')}.s`;
    const id = randomUUID();
    for (const sub of [`${id}-ann`, `${id}-bob`, `${id}-bob`]) open({ shareTabs: true, getToken: () => jwt(sub) });
    await until(() => transport.connections.length === 2);
    const { tab, noise } = open({ shareTabs: true });
    await until(() => tab.state === 'stopped');
    expect(noise).toEqual(['CANNOT_CONNECT']);
    expect(transport.connections).toHaveLength(2);
  });
});
