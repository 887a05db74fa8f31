import { beforeAll, expect, it } from '@jest/globals';
import { AG_UI_VERSIONS, agUiClient } from '../support/front-ends/ag-ui-clients.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { startNginx } from '../support/nginx.ts';
import { nodeUrl } from '../support/nodes.ts';
import { describeWith, HAPROXY, NGINX } from '../support/programs.ts';
import { FULL_RUN, ScriptedWorker } from '../support/scripted-worker.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

describeWith(HAPROXY, 'AG-UI behind HAProxy', () => test(startLoadBalancer));
// In the long form only (`npm run test:front-ends`), because each proxy needs a stack of its own.
if (process.env.FRONT_ENDS !== undefined) describeWith(NGINX, 'AG-UI behind nginx', () => test(startNginx));

function test(startProxy: (gatewayUrls: readonly string[]) => Promise<{ readonly url: string }>): void {
  const own = useStack({ gateways: 3, workers: 0 });
  let worker: ScriptedWorker;
  let url: string;

  beforeAll(async () => {
    worker = await ScriptedWorker.start(own().addresses);
    ({ url } = await startProxy([0, 1, 2].map((node) => nodeUrl(node, own().addresses))));
  });

  it('arrives event by event, and each client comes back when the gateway is killed', async () => {
    const attempts = await Promise.all(
      AG_UI_VERSIONS.map(async (version) => {
        const { token, userId } = mintToken({}, { stack: own().addresses });
        const messages = [{ id: 'message-1', role: 'user', content: 'How is it?' }] as const;
        const client = agUiClient(version, { url: `${url}/v1/agui/default`, token, threadId: 'thread-1', messages });
        client.cutAfter = Number.POSITIVE_INFINITY;
        const running = client.run('run-1');
        let runId = '';
        await until(async () => {
          runId = (await worker.runs.locate(userId, { threadId: 'thread-1' }))?.runId ?? '';
          return runId !== '';
        });
        const log = await worker.claim(userId, runId);
        for (const event of FULL_RUN.slice(0, 9)) {
          const before = client.received.length;
          await event(log);
          await until(() => client.received.length > before);
        }
        return { client, running, log };
      }),
    );
    await Promise.all(own().gateways.map((gateway) => gateway.kill()));
    await Promise.all(attempts.map(({ running }) => running));
    await own().gateways[0]?.start();
    for (const { client, log } of attempts) {
      // The proxy needs a moment to see that the gateway is back.
      await until(async () => (await fetch(`${url}/health/ready`)).status === 200);
      const rest = client.connect();
      for (const event of FULL_RUN.slice(9)) await event(log);
      await rest;
      expect(client.received.at(-1)).toBe('RUN_FINISHED');
      expect(client.messages.map(({ role }) => role)).toEqual([
        'user',
        'reasoning',
        'assistant',
        'tool',
        'tool',
        'assistant',
      ]);
      expect(client.messages.at(-1)?.content).toBe('It is twelve – 十二.');
    }
  });
}
