import { readFile, writeFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Server } from '@modelcontextprotocol/server';
import { DefaultChatTransport, type UIMessage } from 'ai';
import { Agent, fetch as undiciFetch } from 'undici';
import { percentile } from '../../bench/lib/statistics.ts';
import { serveMcp } from '../../scripts/lib/mcp-http.ts';
import type { RunLog } from '../../src/runs/run-log.ts';
import { TestChat } from '../support/ai-chat.ts';
import { catalogueFolder } from '../support/catalogues.ts';
import { makeCertificates } from '../support/certificates.ts';
import { openStream } from '../support/event-stream.ts';
import { agUiClient } from '../support/front-ends/ag-ui-clients.ts';
import { reportCuts } from '../support/front-ends/report-cuts.ts';
import { servingGateway } from '../support/front-ends/serving-gateway.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { startNginx } from '../support/nginx.ts';
import { closeAfter } from '../support/open-resources.ts';
import { describeWith, HAPROXY, NGINX } from '../support/programs.ts';
import { FULL_RUN, ScriptedWorker } from '../support/scripted-worker.ts';
import { type StackProcess, type StackProcesses, startStack } from '../support/stack.ts';
import type { TestProxy } from '../support/test-proxy.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const IS_LONG = process.env.FRONT_ENDS !== undefined;
const CUTS = IS_LONG ? (['gateway killed', 'gateway drained', 'proxy killed'] as const) : (['gateway killed'] as const);
const HTTP_VERSIONS = IS_LONG ? (['HTTP/1.1', 'HTTP/2'] as const) : (['HTTP/2'] as const);
/** The cut is after the first tool, before the text of the second step. */
const HALF = FULL_RUN.length / 2;
const RETRY = { timeoutMs: 20_000, everyMs: 200 };

type Fetch = typeof globalThis.fetch;
type Cut = (gateway: StackProcess) => Promise<unknown>;

/** A client that was cut in the middle. @returns its state after it has come back */
type Attempt = (url: string, fetch: Fetch, cut: Cut | undefined) => Promise<unknown>;

let own: StackProcesses;
let worker: ScriptedWorker;
let certificates: Awaited<ReturnType<typeof makeCertificates>>;
let proceed: () => void = () => undefined;

/** A tool server whose tool reports a step, and waits before its result. */
function stepServer(): Server {
  const server = new Server({ name: 'steps', version: '1' }, { capabilities: { tools: {} } });
  server.setRequestHandler('tools/list', () => ({ tools: [{ name: 'steps', inputSchema: { type: 'object' } }] }));
  server.setRequestHandler('tools/call', async (_request, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken ?? 0;
    await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress: 1, total: 2 } });
    await new Promise<void>((resolve) => {
      proceed = resolve;
    });
    return { content: [{ type: 'text', text: 'Two steps are done.' }] };
  });
  return server;
}

beforeAll(async () => {
  const upstream = await serveMcp(stepServer);
  closeAfter('file', () => upstream.close());
  const servers = {
    servers: [{ name: 'steps', url: upstream.url, tools: { steps: { permission: 'basic', units: 0 } } }],
  };
  const folder = catalogueFolder({ 'tool-servers.json': servers }, 'file');
  own = await startStack({ gateways: 3, workers: 0, env: { TOOL_SERVERS: `${folder}/tool-servers.json` } });
  worker = await ScriptedWorker.start(own.addresses);
  certificates = await makeCertificates('IP:127.0.0.1');
  // HAProxy reads both from one file.
  const contents = await Promise.all([certificates.cert, certificates.key].map((file) => readFile(file, 'utf8')));
  await writeFile(pem(), contents.join(''));
}, 60_000);

const pem = () => `${certificates.cert}.pem`;
const user = () => mintToken({}, { stack: own.addresses });

async function claim({ userId }: MintedToken): Promise<RunLog> {
  const runId = await until(async () => (await worker.redis.zrange(worker.keys.user(userId).runs, '0', '0'))[0], RETRY);
  return worker.claim(userId, runId);
}

async function append(log: RunLog, events: typeof FULL_RUN): Promise<void> {
  for (const event of events) await event(log);
}

/** Cuts the stream, which ends before its run, and lets the client come back until it is whole. */
async function cutAndReturn(log: RunLog, cut: Cut | undefined, ended: Promise<unknown>, back: () => Promise<boolean>) {
  if (cut) {
    await cut(await servingGateway(own));
    await ended;
  }
  await append(log, FULL_RUN.slice(HALF));
  if (cut) await until(back, RETRY);
  else await ended;
}

const aiSdk: Attempt = async (url, fetch, cut) => {
  const me = user();
  const headers = { authorization: `Bearer ${me.token}` };
  const transport = new DefaultChatTransport<UIMessage>({ api: `${url}/v1/chat`, headers, fetch });
  const chat = new TestChat({ id: 'chat-1', transport });
  const sent = chat.sendMessage({ text: 'How much?' });
  const log = await claim(me);
  await append(log, FULL_RUN.slice(0, HALF));
  await until(() => chat.lastMessage?.parts.some(({ type }) => type === 'tool-cost_analyzer'), RETRY);
  await cutAndReturn(log, cut, sent, async () => {
    await chat.resumeStream();
    return chat.status === 'ready';
  });
  return comparable(chat.messages);
};

const agUi: Attempt = async (url, fetch, cut) => {
  const me = user();
  const messages = [{ id: 'message-1', role: 'user', content: 'How much?' }] as const;
  const options = { url: `${url}/v1/agui/default`, token: me.token, threadId: 'thread-1', messages, fetch };
  const client = agUiClient('1.0.0', options);
  client.cutAfter = Number.POSITIVE_INFINITY;
  const running = client.run('run-1').catch(() => undefined);
  const log = await claim(me);
  await append(log, FULL_RUN.slice(0, HALF));
  await until(() => client.received.includes('TOOL_CALL_START'), RETRY);
  await cutAndReturn(log, cut, running, async () => {
    await client.connect().catch(() => undefined);
    return client.received.at(-1) === 'RUN_FINISHED';
  });
  return comparable(client.messages);
};

/** The call of a tool is no run: a client whose stream breaks calls it again. */
const mcp: Attempt = async (url, fetch, cut) => {
  const { token } = user();
  const call = async (onprogress: () => unknown) => {
    const client = new Client({ name: 'cuts', version: '1' }, { versionNegotiation: { mode: 'auto' } });
    closeAfter('test', () => client.close());
    const requestInit = { headers: { authorization: `Bearer ${token}` } };
    await client.connect(new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { requestInit, fetch }));
    const { content } = await client.callTool({ name: 'steps', arguments: {} }, { onprogress, timeout: 15_000 });
    await client.close();
    return content;
  };
  if (!cut) return call(() => proceed());
  const steps: unknown[] = [];
  const first = call(() => steps.push(1)).catch(() => 'broken');
  await until(() => steps.length > 0, RETRY);
  // Its request is no connection that a gateway counts, so all of them are cut.
  await Promise.all(own.gateways.map(cut));
  proceed();
  void first;
  return until(() => call(() => proceed()).catch(() => undefined), RETRY);
};

const CLIENTS: Readonly<Record<string, Attempt>> = { 'AI SDK': aiSdk, 'AG-UI': agUi, ...(IS_LONG ? { MCP: mcp } : {}) };

/** Ids and times of a run differ from those of another. */
function comparable(value: unknown): unknown {
  const text = JSON.stringify(value, (key, inner) => (key === 'metadata' || key === 'timestamp' ? undefined : inner));
  return JSON.parse(text.replaceAll(/run_[\w-]{20}/g, 'run').replace(/"id":"(?!run)[\w]{16}"/g, '"id":"own"'));
}

function fetchOf(version: (typeof HTTP_VERSIONS)[number], ca: string): Fetch {
  if (version === 'HTTP/1.1') return fetch;
  const dispatcher = new Agent({ allowH2: true, connect: { ca } });
  closeAfter('test', () => dispatcher.destroy());
  return ((input, init) => undiciFetch(input as string, { ...init, dispatcher } as never)) as Fetch;
}

const PROXIES = [
  ['HAProxy', HAPROXY, (urls: readonly string[]) => startLoadBalancer(urls, { pem: pem() })],
  ...(IS_LONG ? [['nginx', NGINX, (urls: readonly string[]) => startNginx(urls, certificates)] as const] : []),
] as const;

describe.each(PROXIES)('behind %s', (proxyName, program, startProxy) => {
  describeWith(program, 'a stream', () => {
    let proxy: TestProxy;
    let restarting: Promise<void> | undefined;
    beforeAll(async () => {
      proxy = await startProxy(own.addresses.gateways.map(({ url }) => url));
    });
    const cutBy: Readonly<Record<string, Cut>> = {
      'gateway killed': (gateway) => gateway.kill().then(() => gateway.start()),
      'gateway drained': (gateway) => gateway.restart(),
      'proxy killed': () => {
        restarting ??= proxy.restart().finally(() => {
          restarting = undefined;
        });
        return restarting;
      },
    };

    const cells = Object.keys(CLIENTS).flatMap((client) => HTTP_VERSIONS.map((version) => [client, version] as const));
    it.each(cells)(
      'of %s over %s has the state of an uncut one after it was cut',
      async (client, version) => {
        const attempt = CLIENTS[client] as Attempt;
        const send = fetchOf(version, await readFile(certificates.ca, 'utf8'));
        const url = version === 'HTTP/2' ? proxy.tlsUrl : proxy.url;
        const whole = await attempt(url, send, undefined);
        for (const cut of CUTS) {
          const state = await attempt(url, send, cutBy[cut]);
          const isEqual = JSON.stringify(state) === JSON.stringify(whole);
          reportCuts(`${client}, ${proxyName}, ${version}`, cut, Number(isEqual), 1);
          expect(state).toEqual(whole);
        }
      },
      120_000,
    );
  });
});

if (IS_LONG) {
  describeWith(HAPROXY, 'option http-no-delay', () => {
    it('delivers events sooner than without it', async () => {
      const medians: number[] = [];
      for (const noDelay of [true, false]) {
        const { url } = await startLoadBalancer(
          own.addresses.gateways.map((gateway) => gateway.url),
          { noDelay },
        );
        const me = user();
        const stream = openStream(`${url}/v1/events`, { token: me.token });
        await stream.waitFor('connection_established');
        const times: number[] = [];
        for (let at = 0; at < 40; at++) {
          const before = stream.events.length;
          const fields = { thought: 'x', timestamp: new Date().toISOString() };
          const startedAt = performance.now();
          await worker.log.append({
            userId: me.userId,
            events: [{ type: 'agent_thinking', fields }],
          });
          await until(() => stream.events.length > before, { everyMs: 1 });
          times.push(performance.now() - startedAt);
        }
        const [p50, p99] = [0.5, 0.99].map((share) => percentile(times, share).toFixed(1));
        process.stdout.write(`HTTP/1.1 through HAProxy, http-no-delay ${noDelay}: p50 ${p50} ms, p99 ${p99} ms\n`);
        medians.push(percentile(times, 0.5));
      }
      const [without = 0, delayed = 0] = medians;
      expect(without).toBeLessThan(delayed);
    }, 60_000);
  });
}
