import { connect } from 'node:net';
import { expect, it } from '@jest/globals';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { useStack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const CHUNK_LIMIT = 1_024;
const BODY_TIMEOUT_MS = 10_000;

const PATH = '/socket.io/?EIO=4&transport=polling';

const stack = useStack({ workers: 0, env: { AUTH_DEADLINE_SECONDS: '60' } });
const url = () => nodeUrl(0, stack().addresses);

/** Returns the path of a new polling session. */
async function openSession(): Promise<string> {
  const opened = await fetch(`${url()}${PATH}`);
  const { sid } = JSON.parse((await opened.text()).slice(1));
  return `${PATH}&sid=${sid}`;
}

async function authenticate(path: string): Promise<void> {
  const { token } = mintToken({}, { stack: stack().addresses });
  await fetch(`${url()}${path}`, { method: 'POST', body: `40${JSON.stringify({ token })}` });
  await until(async () => (await (await fetch(`${url()}${path}`)).text()).includes('40{'));
}

/** Reads the session until it ends: a client that reads nothing for ten seconds loses its session too. */
async function keepReading(path: string): Promise<void> {
  while ((await fetch(`${url()}${path}`).catch(() => undefined))?.status === 200);
}

/** A POST whose body the test writes piece by piece. */
function openPost(path: string, framing: string) {
  const { hostname, port, host } = new URL(url());
  const head = `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: text/plain\r\n${framing}\r\n\r\n`;
  const socket = connect(Number(port), hostname);
  socket.write(head);
  let answer = '';
  socket.on('data', (data) => {
    answer += String(data);
  });
  socket.on('error', () => {});
  const closed = new Promise<string>((resolve) => socket.once('close', () => resolve(answer)));
  closeAfter('test', () => socket.destroy());
  return { write: (text: string) => socket.write(text), answer: () => answer, closed };
}

/** HTTP chunks, which Node passes on one by one. */
function chunks(count: number): string {
  return '1\r\n3\r\n'.repeat(count);
}

it('a polling body may come in 1,024 pieces; with one more it is refused with 413, and its session ends', async () => {
  const path = await openSession();
  const within = openPost(path, 'Transfer-Encoding: chunked');
  within.write(`${chunks(CHUNK_LIMIT)}0\r\n\r\n`);
  expect(await until(within.answer)).toMatch(/^HTTP\/1\.1 200 /);

  const above = openPost(path, 'Transfer-Encoding: chunked');
  above.write(chunks(CHUNK_LIMIT + 1));
  expect(await above.closed).toMatch(/^HTTP\/1\.1 413 /);
  expect((await fetch(`${url()}${path}`)).status).toBe(400);
});

it('refuses a polling body that is incomplete after ten seconds with 408, and ends its session', async () => {
  const path = await openSession();
  await authenticate(path);
  const reading = keepReading(path);
  const watch = await Stopwatch.start();
  const post = openPost(path, 'Content-Length: 100');
  post.write('3');
  expect(await post.closed).toMatch(/^HTTP\/1\.1 408 /);
  const tookMs = watch.ms;
  expect(tookMs).toBeGreaterThan(BODY_TIMEOUT_MS - 500);
  // Without a limit of its own, the body has the 30 seconds of a request.
  expect(tookMs).toBeLessThan(watch.allow(2 * BODY_TIMEOUT_MS));
  await reading;
  expect((await fetch(`${url()}${path}`)).status).toBe(400);
}, 60_000);
