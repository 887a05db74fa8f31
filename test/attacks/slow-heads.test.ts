import { connect } from 'node:net';
import { expect, it } from '@jest/globals';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';

const HEADERS_TIMEOUT_MS = 10_000;
const SLACK_MS = 4_000;

const stack = useStack({ workers: 0 });

/** Sends a start, then one byte after the other, and returns the response and the time until the end. */
function drip(start: string, bytes: string): Promise<{ answer: string; tookMs: number }> {
  const startedAt = performance.now();
  const { hostname, port } = new URL(nodeUrl(0, stack().addresses));
  return new Promise((resolve) => {
    let answer = '';
    let at = 0;
    const socket = connect(Number(port), hostname, () => socket.write(start));
    const timer = setInterval(() => {
      socket.write(bytes[at % bytes.length] ?? '');
      at += 1;
    }, 200);
    closeAfter('test', () => {
      clearInterval(timer);
      socket.destroy();
    });
    socket.on('data', (data) => {
      answer += String(data);
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve({ answer, tookMs: performance.now() - startedAt }));
  });
}

it('cuts off an incomplete request head after ten seconds, and closes an idle connection without a response', async () => {
  const watch = await Stopwatch.start();
  const upgrade = 'GET /ws HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n';
  const [silent, ...ends] = await Promise.all([
    drip('', ''),
    drip('GET /health/live HTTP/1.1\r\nX-A: ', 'a'),
    drip(upgrade, 'X: 1\r\n'),
    drip('GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n', 'X: 1\r\n'),
  ]);
  expect(silent.answer).toBe('');
  for (const { answer } of ends) expect(answer).toMatch(/^HTTP\/1\.1 408 /);
  for (const { tookMs } of [silent, ...ends]) {
    expect(tookMs).toBeGreaterThan(HEADERS_TIMEOUT_MS - 500);
    expect(tookMs).toBeLessThan(watch.allow(HEADERS_TIMEOUT_MS + SLACK_MS));
  }
});

it('a head above 16 KiB is refused with 431', async () => {
  const headers = { 'X-Pad': 'x'.repeat(20_000) };
  const raw = openRawSocket({ url: nodeUrl(0, stack().addresses), path: '/ws', headers });
  expect((await raw.answer).status).toBe(431);
  expect(JSON.parse(String(await raw.ended))).toMatchObject({ error: { code: 'MESSAGE_TOO_LARGE', retryable: false } });
});
