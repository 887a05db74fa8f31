import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { cutResponse } from '../support/front-ends/ag-ui-clients.ts';
import { installPackage } from '../support/front-ends/installed-packages.ts';
import { reportCuts } from '../support/front-ends/report-cuts.ts';
import { nodeUrl } from '../support/nodes.ts';
import { FULL_RUN, ScriptedWorker } from '../support/scripted-worker.ts';
import { useStack } from '../support/stack.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/**
 * The real client of CopilotKit, which has 70 MB of dependencies: installed by `npm run test:front-ends` only. The short
 * form has its agent class (`@ag-ui/client` 0.0.59) and its requests.
 */
const describeInLongForm = process.env.FRONT_ENDS === undefined ? describe.skip : describe;
const VERSION = '1.75.0';

interface CopilotAgent {
  readonly messages: readonly { readonly id: string; readonly role: string }[];
  threadId: string;
  fetch: (url: string, init: RequestInit) => Promise<Response>;
  addMessage(message: object): void;
}
interface CopilotCore {
  readonly runtimeConnectionStatus: string;
  readonly runtimeTransport: string;
  getAgent(id: string): CopilotAgent | undefined;
  runAgent(params: { agent: CopilotAgent }): Promise<unknown>;
  connectAgent(params: { agent: CopilotAgent }): Promise<unknown>;
  stopAgent(params: { agent: CopilotAgent }): void;
}
type CopilotKit = { readonly CopilotKitCore: new (options: object) => CopilotCore };

let copilotKit: CopilotKit;

describeInLongForm('the client of CopilotKit', () => {
  const own = useStack({ gateways: 2, workers: 0 });
  let worker: ScriptedWorker;

  beforeAll(async () => {
    worker = await ScriptedWorker.start(own().addresses);
    // Without a window, the client takes itself for a server-side rendering and requests nothing.
    Object.assign(globalThis, { window: globalThis });
    const folder = await installPackage('@copilotkit/core', VERSION);
    copilotKit = await import(join(folder, 'node_modules/@copilotkit/core/dist/index.mjs'));
  }, 180_000);

  const user = () => mintToken({}, { stack: own().addresses });

  async function connected({ token }: MintedToken, transport: string, node = 0, cutAfter?: number) {
    const runtimeUrl = `${nodeUrl(node, own().addresses)}/v1/copilotkit`;
    const headers = { authorization: `Bearer ${token}` };
    const core = new copilotKit.CopilotKitCore({ runtimeUrl, headers, runtimeTransport: transport });
    await until(() => core.runtimeConnectionStatus === 'connected');
    const agent = core.getAgent('default');
    if (!agent) throw new Error('the runtime has no default agent');
    agent.fetch = async (target, init) => cutResponse(await fetch(target, init), cutAfter);
    agent.threadId = 'thread-1';
    return { core, agent };
  }

  async function claim({ userId }: MintedToken) {
    let runId = '';
    await until(async () => {
      runId = (await worker.runs.locate(userId, { threadId: 'thread-1' }))?.runId ?? '';
      return runId !== '';
    });
    return { runId, log: await worker.claim(userId, runId) };
  }

  /** `connectAgent` of a page clears the messages first, so the question comes from the thread, with another id. */
  function comparable(messages: readonly object[], runId: string): unknown {
    const plain = JSON.stringify(messages, (key, value) => (key === 'metadata' ? undefined : value));
    return JSON.parse(plain.replaceAll(runId, 'run').replace('"message-1"', '"run-user"'));
  }

  const QUESTION = { id: 'message-1', role: 'user', content: 'How is it?' };

  /** Runs the script; the response ends after `cutAfter` events, and the client comes back. */
  async function attempt(transport: string, cutAfter?: number): Promise<unknown> {
    const me = user();
    const { core, agent } = await connected(me, transport, 0, cutAfter);
    agent.addMessage(QUESTION);
    const running = core.runAgent({ agent });
    const { runId, log } = await claim(me);
    for (const event of FULL_RUN) await event(log);
    await running;
    if (cutAfter === undefined) return comparable(agent.messages, runId);
    agent.fetch = (target, init) => fetch(target, init);
    await core.connectAgent({ agent });
    return comparable(agent.messages, runId);
  }

  it.each(['rest', 'single', 'auto'])(
    'has the same conversation after a cut at any event, by %s',
    async (transport) => {
      const whole = await attempt(transport);
      expect(whole).toHaveLength(6);
      const different: number[] = [];
      for (let cut = 0; cut < 27; cut++) {
        if (JSON.stringify(await attempt(transport, cut)) !== JSON.stringify(whole)) different.push(cut);
      }
      reportCuts(`CopilotKit ${VERSION}, ${transport}`, 'each event', 27 - different.length, 27);
      expect(different).toEqual([]);
    },
    120_000,
  );

  it('shows the run of a thread after a reload, on another node, and stops it', async () => {
    const me = user();
    const first = await connected(me, 'rest', 0, Number.POSITIVE_INFINITY);
    first.agent.addMessage(QUESTION);
    const running = first.core.runAgent({ agent: first.agent });
    const { log } = await claim(me);
    for (const event of FULL_RUN.slice(0, 6)) await event(log);
    const { core, agent } = await connected(me, 'rest', 1);
    const reloaded = core.connectAgent({ agent });
    await until(() => agent.messages.length === 3);
    // The page that came back replaces the first one.
    await running;
    core.stopAgent({ agent });
    await until(
      async () => (await worker.redis.hget(worker.keys.user(me.userId).run(await runOf(me)), 'cancel')) !== null,
    );
    await log.cancelled();
    await reloaded;
    expect(agent.messages.map(({ role }) => role)).toEqual(['user', 'reasoning', 'assistant']);
  });

  async function runOf({ userId }: MintedToken): Promise<string> {
    return (await worker.runs.locate(userId, { threadId: 'thread-1' }))?.runId ?? '';
  }
});
