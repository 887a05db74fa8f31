import { expect, it } from '@jest/globals';
import { percentile } from '../../bench/lib/statistics.ts';
import { openClient } from '../support/clients.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { type Absence, MOVING_CLIENTS } from '../support/moving-clients.ts';
import { describeWith, HAPROXY } from '../support/programs.ts';
import { useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Per transport. */
const CLIENTS = Math.ceil(Number(process.env.FAULT_CLIENTS ?? 60) / Object.keys(MOVING_CLIENTS).length);
/** Longer than the three seconds that HAProxy needs to detect a draining node, and than the allowed time away. */
const DRAIN_SECONDS = Number(process.env.FAULT_DRAIN_SECONDS ?? 6);
const MEDIAN_MS = 2_000;
const MOST_MS = 5_000;
/** Maximum of `retry_after_ms`, and of `Retry-After` in ms. */
const RETRY_MS = 1_000;
/** Period of the messages of long-polling clients that send any. */
const SENDS_EVERY_MS = 500;
const TIMEOUT_MS = 120_000 + DRAIN_SECONDS * 1_000;

interface AbsencesOptions {
  readonly keepsPolling?: boolean;
  readonly sendsEveryMs?: number;
}

describeWith(HAPROXY, 'a node that drains behind HAProxy', () => {
  const processes = useStack({
    gateways: 3,
    workers: 0,
    env: { TRUSTED_PROXY_HOPS: '1', DRAIN_SECONDS: String(DRAIN_SECONDS), MESSAGE_RATE_PER_MINUTE: '1000' },
  });

  /** Connects clients, stops a node, and returns their absences when all are back. */
  async function absencesOf(transport: string, options: AbsencesOptions = {}) {
    const { gateways, addresses } = processes();
    const { url } = await startLoadBalancer(
      gateways.map((gateway) => gateway.url),
      options,
    );
    const [node] = gateways;
    // A node without connections stops at once. These leave first, so that the proxy has detected the drain before the
    // turn of the last clients.
    const { token } = mintToken({ plan: 'enterprise' }, { stack: addresses });
    for (let at = 0; at < 3; at += 1) await openClient({ url: node?.url, token });
    const clients = Array.from({ length: CLIENTS }, () => {
      const { token } = mintToken({ plan: 'enterprise' }, { stack: addresses });
      return MOVING_CLIENTS[transport]?.({ url, token, ...options });
    });
    const allConnected = () => clients.every((client) => client?.connected);
    await until(allConnected, { timeoutMs: TIMEOUT_MS, label: 'every client connected' });
    expect(await node?.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    await until(allConnected, { timeoutMs: TIMEOUT_MS, label: 'every client back' });
    await node?.start();
    const absences = clients.flatMap((client) => client?.absences ?? []);
    report(
      `${transport}${options.keepsPolling === false ? ', behind a proxy that forgets the node' : ''}${options.sendsEveryMs ? ', sending' : ''}`,
      absences,
    );
    return absences;
  }

  it.each(Object.keys(MOVING_CLIENTS))(
    'B225 is without a client over %s for less than 2 s at the median, 5 s at most',
    async (transport) => {
      const watch = await Stopwatch.start();
      const absences = await absencesOf(transport);
      const away = absences.map(awayMs);
      // The node serves MCP requests until HAProxy has detected the drain: no client notices it.
      if (transport === 'MCP over HTTP') return expect(away).toEqual([]);
      expect(away.length).toBeGreaterThan(0);
      expect(percentile(away, 0.5)).toBeLessThan(watch.allow(MEDIAN_MS));
      expect(Math.max(...away)).toBeLessThan(watch.allow(MOST_MS));
      for (const { retryAfterMs } of absences) expect(retryAfterMs).toBeLessThanOrEqual(RETRY_MS);
      // The clients leave one after the other over their part of the drain; three connections of the test have the rest.
      const lostAt = absences.map((absence) => absence.lostAt);
      expect(Math.max(...lostAt) - Math.min(...lostAt)).toBeGreaterThan((DRAIN_SECONDS * 1_000) / 4);
    },
    TIMEOUT_MS,
  );

  it(
    'notifies long-polling clients whose poll waits also behind a proxy that forgets the node',
    async () => {
      const absences = await absencesOf('Socket.IO over long polling', { keepsPolling: false });
      expect(absences.length).toBeGreaterThan(0);
      for (const { retryAfterMs } of absences) expect(retryAfterMs).toBeLessThanOrEqual(RETRY_MS);
    },
    TIMEOUT_MS,
  );

  it(
    'is without long-polling clients that send messages for less than 5 s behind such a proxy',
    async () => {
      const watch = await Stopwatch.start();
      const options = { keepsPolling: false, sendsEveryMs: SENDS_EVERY_MS };
      const absences = await absencesOf('Socket.IO over long polling', options);
      // The proxy sent their messages to a node that does not know the session.
      expect(absences.some(({ retryAfterMs }) => retryAfterMs === undefined)).toBe(true);
      const away = absences.map(awayMs);
      expect(percentile(away, 0.5)).toBeLessThan(watch.allow(MEDIAN_MS));
      expect(Math.max(...away)).toBeLessThan(watch.allow(MOST_MS));
    },
    TIMEOUT_MS,
  );
});

function awayMs({ lostAt, backAt }: Absence): number {
  return backAt - lostAt;
}

function report(what: string, absences: readonly Absence[]): void {
  const away = absences.map(awayMs);
  const backAt = absences.map((absence) => absence.backAt);
  const peak = Math.max(0, ...backAt.map((at) => backAt.filter((other) => other >= at && other < at + 1_000).length));
  if (away.length === 0) return void process.stdout.write(`drain over ${DRAIN_SECONDS} s, ${what}: no client away\n`);
  const [median, most] = [percentile(away, 0.5), Math.max(...away)].map((ms) => (ms / 1_000).toFixed(2));
  const figures = `${away.length} of ${CLIENTS} away, median ${median} s, most ${most} s, back at ${peak} a second at most`;
  process.stdout.write(`drain over ${DRAIN_SECONDS} s, ${what}: ${figures}\n`);
}
