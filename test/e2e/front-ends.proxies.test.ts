import { beforeAll, describe, expect, it } from '@jest/globals';
import { DefaultChatTransport, type UIMessage } from 'ai';
import { TestChat } from '../support/ai-chat.ts';
import { openStream } from '../support/event-stream.ts';
import { servingGateway } from '../support/front-ends/serving-gateway.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { startNginx } from '../support/nginx.ts';
import { describeWith, HAPROXY, NGINX } from '../support/programs.ts';
import { FULL_RUN, ScriptedWorker } from '../support/scripted-worker.ts';
import { type StackProcess, useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Drains, of which each proxy takes some seconds to notice. */
const itInLongForm = process.env.FRONT_ENDS === undefined ? it.skip : it;

const own = useStack({ gateways: 3, workers: 0 });
let worker: ScriptedWorker;

beforeAll(async () => {
  worker = await ScriptedWorker.start(own().addresses);
});

const gatewayUrls = () => own().addresses.gateways.map(({ url }) => url);
const textOf = (messages: readonly UIMessage[]) => {
  return messages.flatMap(({ parts }) => parts.flatMap((part) => (part.type === 'text' ? [part.text] : [])));
};

/** A chat whose gateway ends in the middle of the run. */
async function chatThrough(url: string, end: (gateway: StackProcess) => Promise<unknown>) {
  const me = mintToken({}, { stack: own().addresses });
  const headers = { authorization: `Bearer ${me.token}` };
  const transport = new DefaultChatTransport<UIMessage>({ api: `${url}/v1/chat`, headers });
  const chat = new TestChat({ id: 'chat-1', transport });
  const sent = chat.sendMessage({ text: 'How much?' });
  const runId = await until(async () => (await worker.redis.zrange(worker.keys.user(me.userId).runs, '0', '0'))[0]);
  const log = await worker.claim(me.userId, runId);
  const half = FULL_RUN.length / 2;
  for (const append of FULL_RUN.slice(0, half)) await append(log);
  await until(() => chat.lastMessage?.parts.some(({ type }) => type === 'tool-cost_analyzer'));
  const gateway = await servingGateway(own());
  await end(gateway);
  await sent;
  const { status, error } = chat;
  await gateway.start();
  const resumed = until(
    async () => {
      await chat.resumeStream();
      return chat.status === 'ready';
    },
    { timeoutMs: 20_000, everyMs: 200 },
  );
  for (const append of FULL_RUN.slice(half)) await append(log);
  await resumed;
  return { interrupted: { status, error: error?.message }, texts: textOf(chat.messages) };
}

const TEXTS = ['How much?', 'I look at both: ', 'It is twelve – 十二.'];

describe.each([
  ['HAProxy', HAPROXY, startLoadBalancer],
  ['nginx', NGINX, startNginx],
] as const)('behind %s', (_name, program, startProxy) => {
  describeWith(program, 'a chat', () => {
    let url = '';
    beforeAll(async () => {
      ({ url } = await startProxy(gatewayUrls()));
    });

    it('is broken by kill -9 of its gateway, and complete after a resume on another one', async () => {
      const { interrupted, texts } = await chatThrough(url, (gateway) => gateway.kill());
      expect(interrupted.status).toBe('error');
      expect(texts).toEqual(TEXTS);
    }, 60_000);

    itInLongForm(
      'ends with SERVER_DRAINING when its gateway stops, and is complete after a resume on another one',
      async () => {
        const { interrupted, texts } = await chatThrough(url, (gateway) => gateway.stop());
        expect(JSON.parse(interrupted.error ?? '{}')).toMatchObject({ error: { code: 'SERVER_DRAINING' } });
        expect(texts).toEqual(TEXTS);
      },
      60_000,
    );

    itInLongForm(
      'of plain events has a broken end after a drain',
      async () => {
        const me = mintToken({}, { stack: own().addresses });
        const stream = openStream(`${url}/v1/events`, { token: me.token });
        await stream.waitFor('connection_established');
        const gateway = await servingGateway(own());
        await gateway.stop();
        await stream.ended();
        expect([stream.end, stream.events.at(-1)?.data.code]).toEqual(['broken', 'SERVER_DRAINING']);
        await gateway.start();
      },
      60_000,
    );
  });
});
