import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, expect, it } from '@jest/globals';
import { catalogueFolder, planFile, toolFile } from '../support/catalogues.ts';
import { type AgUiClient, agUiClient } from '../support/front-ends/ag-ui-clients.ts';
import { PacedResponses } from '../support/front-ends/paced-responses.ts';
import { billedRecords } from '../support/ledger.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Minutes of the run; `npm run test:endurance` sets 30. The short form makes each fault once. */
const MINUTES = Number(process.env.ENDURANCE_MINUTES ?? 0);
const IS_LONG = MINUTES > 0;
const WORD_EVERY_MS = IS_LONG ? 250 : 50;
/** Pause between two faults. */
const FAULT_EVERY_MS = IS_LONG ? 30_000 : 500;
/** Guarantee: 45 s from the death of a worker. */
const RECOVERY_MS = 45_000;
const RETRY_MS = 200;

type Fault = readonly [name: string, make: (round: number) => unknown];
/** The next worker finds the run only after the lease of the last one has expired: not in the short form. */
const WORKER_FAULTS: readonly Fault[] = [
  ['worker stopped', () => stack.workers[0]?.restart()],
  ['worker killed', () => stack.workers[0]?.kill().then(() => stack.workers[0]?.start())],
];

let agent: PacedResponses;
let stack: StackProcesses;

beforeAll(async () => {
  agent = await PacedResponses.start(WORD_EVERY_MS);
  closeAfter('file', () => agent.close());
  const row = {
    name: 'long_agent',
    description: 'A run of many minutes.',
    kind: 'responses',
    url: agent.url,
    timeout_seconds: Math.ceil(MINUTES * 60) + 300,
  };
  const files = {
    'plans.json': planFile,
    'tools.json': toolFile,
    'agents.json': { default: 'long_agent', agents: [row] },
  };
  const env = {
    CATALOGUE_DIR: catalogueFolder(files, 'file'),
    // A client that comes back needs the run from its first event.
    EVENT_LOG_LENGTH: '100000',
  };
  stack = await startStack({ gateways: 2, workers: 1, env });
});

/** A page with an AG-UI client: it comes back, on the next node, until the run has ended. */
class Page {
  readonly client: AgUiClient;
  readonly ended: Promise<void>;
  connections = 0;
  #isClosed = false;

  /** @param asks whether it starts the run; a page that was loaded again has nothing but the id of the thread */
  constructor(token: string, asks: boolean) {
    const messages = asks ? [{ id: 'message-1', role: 'user', content: 'Count.' } as const] : [];
    this.client = agUiClient('1.0.0', { url: '', token, threadId: 'thread-1', messages });
    this.client.cutAfter = Number.POSITIVE_INFINITY;
    this.ended = this.#follow(asks);
  }

  get text(): string {
    const answers = this.client.messages.filter(({ role }) => role === 'assistant');
    return answers.map(({ content }) => content ?? '').join('');
  }

  /** Leaves the stream as a page does that is closed. */
  close(): void {
    this.#isClosed = true;
    this.client.cutAfter = 0;
  }

  async #follow(asks: boolean): Promise<void> {
    while (!this.#isClosed && this.client.received.at(-1) !== 'RUN_FINISHED') {
      if (this.connections > 0) await delay(RETRY_MS);
      this.client.url = `${nodeUrl(this.connections % 2, stack.addresses)}/v1/agui/default`;
      const repeats = asks && !this.client.received.includes('RUN_STARTED');
      this.connections += 1;
      await (repeats ? this.client.run('run-1') : this.client.connect()).catch(() => undefined);
    }
  }
}

it(
  'a run over AG-UI is whole although its gateways, worker, agent and page are restarted',
  async () => {
    const { token, userId } = mintToken({}, { stack: stack.addresses, expiresInSeconds: 7_200 });
    const pages = [new Page(token, true)];
    const page = () => pages.at(-1) as Page;
    const reload = () => {
      page().close();
      pages.push(new Page(token, false));
    };
    const counts = new Map<string, number>();
    const gateway = (at: number) => stack.gateways[at % 2];
    const faults: readonly Fault[] = [
      [
        'gateway killed',
        (round) =>
          gateway(round)
            ?.kill()
            .then(() => gateway(round)?.start()),
      ],
      ['page loaded again', () => reload()],
      ["agent's stream broken", () => agent.cut()],
      ['gateway stopped', (round) => gateway(round + 1)?.restart()],
      ...(IS_LONG ? WORKER_FAULTS : []),
    ];
    /** The page shows a prefix of the text: nothing is doubled, missing in the middle or in another order. */
    const isExact = () => agent.text.startsWith(page().text);
    const news = () => until(() => page().text.length > 0 && isExact(), { timeoutMs: 15_000 });
    await news();
    const endsAt = Date.now() + MINUTES * 60_000;
    for (let at = 0; at < faults.length || Date.now() < endsAt; at++) {
      const [name, make] = faults[at % faults.length] ?? [];
      const before = page().text.length;
      await make?.(Math.floor(at / faults.length));
      counts.set(name ?? '', (counts.get(name ?? '') ?? 0) + 1);
      for (const until = Date.now() + FAULT_EVERY_MS; Date.now() < until; ) {
        expect(isExact()).toBe(true);
        await delay(100);
      }
      // Whatever was restarted, new words arrive.
      await until(() => isExact() && page().text.length > before, {
        timeoutMs: RECOVERY_MS,
        label: `news after ${name}`,
      });
    }
    agent.finish();
    await until(() => page().client.received.at(-1) === 'RUN_FINISHED', { timeoutMs: RECOVERY_MS });
    await Promise.all(pages.map(({ ended }) => ended));
    report(pages, counts);
    expect(page().text).toBe(agent.text);
    expect(agent.created).toBe(1);
    await until(async () => (await billedRecords(userId, stack.addresses)).length > 0, { timeoutMs: 15_000 });
    expect(await billedRecords(userId, stack.addresses)).toMatchObject([
      { units_by_kind: { output_tokens: agent.words }, reported: true },
    ]);
  },
  (MINUTES + 4) * 60_000,
);

function report(pages: readonly Page[], counts: ReadonlyMap<string, number>): void {
  const shown = (pages.at(-1)?.text ?? '').trim().split(' ');
  const events = pages.reduce((sum, { client }) => sum + client.received.length, 0);
  const connections = pages.reduce((sum, page) => sum + page.connections, 0);
  const missing = agent.words - new Set(shown).size;
  const doubled = shown.length - new Set(shown).size;
  const faults = [...counts].map(([name, count]) => `${name} ${count}`).join(', ');
  process.stdout.write(
    `AG-UI for ${MINUTES} minutes: ${agent.words} words, ${events} events, ${connections} connections; ${faults}; ` +
      `missing ${missing}, doubled ${doubled}\n`,
  );
}
