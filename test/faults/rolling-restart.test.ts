import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { type Mix, WeightedPicker } from '../../load/lib/mix.ts';
import { VirtualUsers } from '../../load/lib/virtual-users.ts';
import { openClient } from '../support/clients.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { describeWith, HAPROXY } from '../support/programs.ts';
import { type StackProcess, useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** `npm run faults` sets a thousand. */
const CLIENTS = Number(process.env.FAULT_CLIENTS ?? 50);
/** Each client has a run about every ten seconds, so that runs are in flight at each step of a restart. */
const TURNS_PER_SECOND = CLIENTS / 10;
/** Longer than the three seconds that HAProxy needs to detect a draining node. */
const DRAIN_SECONDS = 4;
const TIMEOUT_MS = 60_000 + CLIENTS * 60;

const MIX: Mix = {
  transports: { socketio_websocket: 2, socketio_polling: 0, websocket: 2 },
  // Clients do not disconnect by themselves: each reconnect is caused by a restart.
  turns: { agent_request: 4, tool_call: 1, ping: 1, resume: 0 },
  messages: ['How is my workload doing?', 'Hello'],
  tools: [{ tool: 'list_agents', arguments: {} }],
  think_ms: { min: 0, max: 200 },
};
/** Long polling needs the cookie. */
const MIX_WITH_POLLING: Mix = { ...MIX, transports: { ...MIX.transports, socketio_polling: 1 } };

describeWith(HAPROXY, 'a rolling restart of three gateways behind HAProxy', () => {
  const env = {
    TRUSTED_PROXY_HOPS: '1',
    DRAIN_SECONDS: String(DRAIN_SECONDS),
    CONNECTION_LEASE_SECONDS: '15',
    MESSAGE_RATE_PER_MINUTE: '1000',
  };
  const processes = useStack({ gateways: 3, workers: 1, env });
  let groups: readonly { readonly name: string; readonly url: string; readonly users: VirtualUsers }[] = [];

  beforeAll(async () => {
    const urls = processes().gateways.map(({ url }) => url);
    const balancers = {
      'with affinity': { url: (await startLoadBalancer(urls)).url, mix: MIX_WITH_POLLING },
      'without affinity': { url: (await startLoadBalancer(urls, { affinity: false })).url, mix: MIX },
    };
    groups = Object.entries(balancers).map(([name, { url, mix }]) => ({ name, url, users: newVirtualUsers(url, mix) }));
    await Promise.all(groups.map(({ users }) => users.connect()));
    await allConnected();
    for (const { users } of groups) users.start();
  }, TIMEOUT_MS);

  afterAll(() => {
    for (const { users } of groups) users.close();
  });

  function newVirtualUsers(url: string, mix: Mix): VirtualUsers {
    const count = CLIENTS / 2;
    const tokens = Array.from({ length: count }, () => {
      return mintToken({ plan: 'enterprise' }, { stack: processes().addresses, expiresInSeconds: 7_200 }).token;
    });
    const picker = new WeightedPicker(mix.transports);
    const transports = tokens.map(() => picker.pick());
    return new VirtualUsers({
      url,
      mix,
      tokens,
      transports,
      iterationsPerSecond: TURNS_PER_SECOND / 2,
      connectsPerSecond: 100,
      threads: 1,
    });
  }

  function allConnected(): Promise<unknown> {
    const everybody = () => groups.every(({ users }) => users.measures.connected === CLIENTS / 2);
    return until(everybody, { timeoutMs: TIMEOUT_MS, label: 'every client connected' });
  }

  const reconnects = () => groups.reduce((sum, { users }) => sum + users.measures.counts.reconnects, 0);

  /** The highest number of reconnects within a second, from this call until the returned function is called. */
  function peakOfReconnects(): () => number {
    const everyMs = 100;
    const seen = [reconnects()];
    let peak = 0;
    const timer = setInterval(() => {
      seen.push(reconnects());
      peak = Math.max(peak, (seen.at(-1) ?? 0) - (seen.at(-1 - 1_000 / everyMs) ?? seen[0] ?? 0));
    }, everyMs);
    return () => {
      clearInterval(timer);
      return peak;
    };
  }

  /** Waits until both load balancers send clients to the node again. */
  async function backInRotation(node: StackProcess): Promise<void> {
    const serverId = async (url: string) => {
      const probe = await openClient({ url, token: mintToken({}, { stack: processes().addresses }).token });
      const id = probe.refusal ? undefined : (await probe.welcome()).server_id;
      await probe.close();
      return id;
    };
    const wanted = await serverId(node.url);
    for (const { url, name } of groups) {
      const isBack = async () => (await serverId(url)) === wanted;
      await until(isBack, { timeoutMs: TIMEOUT_MS, label: `${node.name} behind the load balancer ${name}` });
    }
  }

  it(
    `loses and repeats no event of ${CLIENTS} clients with runs in flight, and moves each client once per restart`,
    async () => {
      for (const node of processes().gateways) {
        const before = groups.map(({ users }) => users.reconnects);
        const [sentAwayBefore, peak] = [reconnects(), peakOfReconnects()];
        expect(await node.kill('SIGTERM')).toEqual({ code: 0, signal: null });
        await node.start();
        await backInRotation(node);
        await allConnected();
        const sentAway = reconnects() - sentAwayBefore;
        const rate = `${sentAway} clients sent away over ${DRAIN_SECONDS} s, back at ${peak()} a second at most`;
        process.stdout.write(`rolling restart of ${node.name}: ${rate}\n`);
        for (const [at, { users, name }] of groups.entries()) {
          const times = users.reconnects.map((count, user) => count - (before[at]?.[user] ?? 0));
          expect({ name, most: Math.max(...times) }).toEqual({ name, most: 1 });
        }
      }
      for (const { users, name } of groups) {
        // The last clients may have their welcome and not yet `resumed`.
        const notified = () => users.measures.counts.resumes >= users.measures.counts.reconnects;
        await until(notified, { timeoutMs: TIMEOUT_MS, label: 'the end of the last resume' });
        await users.end(TIMEOUT_MS);
        const { counts, errors } = users.measures;
        process.stdout.write(`rolling restart ${name}: ${JSON.stringify({ ...counts, errors })}\n`);
        expect({ name, ...counts }).toMatchObject({
          name,
          events_lost: 0,
          events_repeated: 0,
          resume_failures: 0,
          turns_failed: 0,
          turns_unfinished: 0,
          turns_dropped: 0,
          turns_completed: counts.turns_due,
          runs_completed: counts.runs_requested,
          // Each client resumed at its own position.
          resumes: counts.reconnects,
        });
        // Every node was restarted, so each client has moved.
        expect(Math.min(...users.reconnects)).toBeGreaterThanOrEqual(1);
        expect(counts.runs_completed).toBeGreaterThan(0);
        expect(counts.connections_lost).toBe(counts.reconnects);
        // No attempt reached a node that refused it: HAProxy retried on another node.
        expect(counts.connections_attempted).toBe(CLIENTS / 2 + counts.reconnects);
      }
    },
    TIMEOUT_MS * 4,
  );
});
