import { beforeAll, expect, it } from '@jest/globals';
import { type EventStreamClient, openStream, type StreamOptions } from '../support/event-stream.ts';
import { scrape } from '../support/metrics.ts';
import { nodeUrl } from '../support/nodes.ts';
import { ScriptedWorker } from '../support/scripted-worker.ts';
import { useStack } from '../support/stack.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const PIECE = 'x'.repeat(48 * 1_024);
/** More than the gateway and the kernel together keep of a stream. */
const PIECES = 340;
const LOG_BYTES = 32 * 1_024 * 1_024;
const LAST = 'This is the end.';

const own = useStack({ gateways: 1, workers: 0 });
let worker: ScriptedWorker;
beforeAll(async () => {
  worker = await ScriptedWorker.start(own().addresses, 1_000, LOG_BYTES);
});

const url = (path: string) => nodeUrl(0, own().addresses) + path;

/** A protocol of event streams: how a client starts a run, comes back, and reads the text of an event. */
interface Protocol {
  readonly start: (me: MintedToken) => readonly [path: string, options: StreamOptions];
  readonly back: (me: MintedToken, runId: string) => readonly [path: string, options: StreamOptions];
  readonly textOf: (data: Readonly<Record<string, unknown>>) => unknown;
}

const post = (me: MintedToken, body: unknown): StreamOptions => ({ method: 'POST', token: me.token, body });
const CHAT = { id: 'chat-1', messages: [{ id: 'm', role: 'user', parts: [{ type: 'text', text: 'Hello' }] }] };
const INPUT = { threadId: 'chat-1', runId: 'r', messages: [{ id: 'm', role: 'user', content: 'Hello' }] };
/** Text of a message in a snapshot, or a piece that follows. */
const agUiText = ({ type, delta, messages }: Readonly<Record<string, unknown>>) => {
  if (type === 'TEXT_MESSAGE_CONTENT') return delta;
  const all = type === 'MESSAGES_SNAPSHOT' ? (messages as { role: string; content: string }[]) : [];
  return all
    .filter(({ role }) => role === 'assistant')
    .map(({ content }) => content)
    .join('');
};

const PROTOCOLS: Readonly<Record<string, Protocol>> = {
  'the AI SDK': {
    start: (me) => ['/v1/chat', post(me, CHAT)],
    back: ({ token }) => ['/v1/chat/chat-1/stream', { token }],
    textOf: ({ delta }) => delta,
  },
  'AG-UI': {
    start: (me) => ['/v1/agui/default', post(me, INPUT)],
    back: (me) => ['/v1/agui/default/connect', post(me, { ...INPUT, messages: [] })],
    textOf: agUiText,
  },
  'the events of a run': {
    start: (me) => ['/v1/runs', post(me, { message: 'Hello' })],
    back: ({ token }, runId) => [`/v1/runs/${runId}/events`, { token }],
    textOf: ({ thought }) => thought,
  },
};

async function runOf({ userId }: MintedToken): Promise<string> {
  return until(async () => (await worker.redis.zrange(worker.keys.user(userId).runs, '0', '0'))[0]);
}

function textOf(stream: EventStreamClient, { textOf: one }: Protocol): string {
  return stream.events.map(({ data }) => one(data) ?? '').join('');
}

const endedAsSlow = async () => (await scrape(url(''), 'tollgate_closes_total')).get('code="SLOW_CONSUMER"') ?? 0;

/** Starts a run and the stream of it. Only over plain HTTP, starting a run does not answer with its stream. */
async function begin(protocol: Protocol) {
  const me = mintToken({}, { stack: own().addresses });
  const [path, options] = protocol.start(me);
  const started = openStream(url(path), options);
  const runId = await runOf(me);
  const [backPath, backOptions] = protocol.back(me, runId);
  const back = () => openStream(url(backPath), backOptions);
  const log = await worker.claim(me.userId, runId);
  await log.started();
  await started.opened();
  const isStream = started.headers['content-type']?.startsWith('text/event-stream') === true;
  const slow = isStream ? started : back();
  await until(() => slow.events.length > 0);
  return { protocol, slow, back, log };
}

it('a reader that stops reading is ended with SLOW_CONSUMER, and has everything after it has come back', async () => {
  const runs = await Promise.all(Object.values(PROTOCOLS).map(begin));
  for (const { slow } of runs) slow.pause();
  await Promise.all(
    runs.map(async ({ log }) => {
      for (let at = 0; at < PIECES; at++) await log.modelText({ thought: PIECE, step: 1 }, {});
      await log.modelText({ thought: LAST, step: 2 }, {});
    }),
  );
  await until(async () => (await endedAsSlow()) === runs.length, { timeoutMs: 15_000 });
  for (const { slow, back, log, protocol } of runs) {
    slow.resume();
    await slow.ended();
    expect(slow.end).toBe('broken');
    const again = back();
    await log.completed({ final_response: LAST, summary: '' });
    await again.ended();
    const text = textOf(again, protocol);
    expect([again.end, text.length, text.endsWith(LAST)]).toEqual([
      'complete',
      PIECES * PIECE.length + LAST.length,
      true,
    ]);
  }
}, 60_000);
