import { beforeAll, expect, it } from '@jest/globals';
import { eventsOf, runToEnd, type SeenRun } from '../support/agent-runs.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { describeWith, HAPROXY } from '../support/programs.ts';
import { refused } from '../support/refusals.ts';
import { durable, seqs, upTo } from '../support/runs.ts';
import { stack } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { type LoginTokens, login, type MintedToken, mintToken, type PlanName } from '../support/tokens.ts';

const PLANS: readonly PlanName[] = ['free', 'pro', 'enterprise', 'developer'];
const QUESTION = 'How is my workload doing, and where could I save money?';
const EVENTS = ['agent_started', 'agent_thinking', 'tool_executing', 'tool_completed', 'agent_completed'];

interface ChatVisit {
  readonly user: MintedToken;
  readonly client: TestClient;
}

/** Expects the events in order: started first, ended last, no completion without a preceding execution. */
function expectOrder({ events }: SeenRun): void {
  const types = events.map(({ type }) => type);
  expect([types[0], types.at(-1), [...new Set(types)]]).toEqual(['agent_started', 'agent_completed', EVENTS]);
  const open = new Set<unknown>();
  for (const { type, fields } of events) {
    if (type === 'tool_executing') open.add(fields.tool_call_id);
    if (type === 'tool_completed') expect(open.delete(fields.tool_call_id)).toBe(true);
  }
  expect(open.size).toBe(0);
}

/** Expects an answer of use: not a phrase, and built from the result of a tool. */
function expectValue({ events }: SeenRun): void {
  const end = events.at(-1)?.fields ?? {};
  expect(String(end.final_response).length).toBeGreaterThanOrEqual(50);
  expect(end.tools_used).not.toEqual([]);
  expect(events.some(({ type, fields }) => type === 'tool_completed' && fields.success === true)).toBe(true);
}

async function askAuth<T>(path: string, body: unknown): Promise<T> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${stack().authUrl}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return (await response.json()) as T;
}

describeWith(HAPROXY, 'a chat with the pool', () => {
  let url: string;
  beforeAll(async () => {
    ({ url } = await startLoadBalancer(stack().gateways.map((gateway) => gateway.url)));
  });

  async function visit(at: number): Promise<ChatVisit> {
    const user = mintToken({ plan: PLANS[at % PLANS.length] ?? 'pro' });
    const client = await openClient({ url, transport: TRANSPORTS[at % 2] ?? 'ws', token: user.token });
    expect(await client.welcome()).toMatchObject({ authenticated: true, user_id: user.userId });
    return { user, client };
  }

  it('B219 serves users of every plan side by side: each gets an answer, and no event of another', async () => {
    const visits = await Promise.all(Array.from({ length: 8 }, (_, at) => visit(at)));
    const runs = await Promise.all(visits.map(({ client }) => runToEnd(client, { message: QUESTION })));
    for (const [at, run] of runs.entries()) {
      const { user, client } = visits[at] as ChatVisit;
      expectValue(run);
      const owners = client.events.flatMap(({ fields }) => (fields.user_id === undefined ? [] : [fields.user_id]));
      expect(new Set(owners)).toEqual(new Set([user.userId]));
      expect(durable(client.events).length).toBe(run.events.length);
    }
  });

  it('B220 B222 keeps the order and the worth of sixty runs of twenty users at once, within a minute', async () => {
    const watch = await Stopwatch.start();
    const visits = await Promise.all(Array.from({ length: 20 }, (_, at) => visit(at)));
    await Promise.all(
      visits.map(async ({ client }) => {
        for (let turn = 0; turn < 3; turn++) {
          const run = await runToEnd(client, { message: QUESTION });
          expectOrder(run);
          expectValue(run);
        }
        expect(seqs(client.events)).toEqual(upTo(seqs(client.events).length));
      }),
    );
    expect(watch.ms).toBeLessThan(watch.allow(60_000));
  }, 90_000);

  it.each(TRANSPORTS)(
    'B224 over %s a client that is cut off in the middle has what came, and the rest when it is back',
    async (transport) => {
      const watch = await Stopwatch.start();
      const waits: number[] = [];
      for (let attempt = 0; attempt < 3; attempt++) {
        const { token } = mintToken({ plan: 'pro' });
        const client = await openClient({ url, transport, token });
        const { epoch } = await client.welcome();
        const sentAt = performance.now();
        client.send('agent_request', { message: QUESTION });
        const started = await client.waitFor('agent_started');
        waits.push(started.at - sentAt);
        await client.terminate();
        // Later events in this process's own buffers count as not received; they may be the whole run.
        const seen = seqs(client.events.slice(0, client.events.indexOf(started) + 1));
        expect(seen.length).toBeGreaterThanOrEqual(1);
        const next = await openClient({ url, transport, token });
        await next.welcome();
        next.send('resume', { after: seen.at(-1), epoch });
        await next.waitFor('agent_completed');
        expect([...seen, ...seqs(next.events)]).toEqual(upTo(seen.length + seqs(next.events).length));
        expect(eventsOf(next, started.fields.run_id).at(-1)?.type).toBe('agent_completed');
      }
      // The fastest of three: the machine may be busy now and then.
      expect(Math.min(...waits)).toBeLessThan(watch.allow(200));
    },
  );

  it('B229 lets fifty users in by their tokens, each in less than a fifth of a second on the average', async () => {
    const watch = await Stopwatch.start();
    for (let at = 0; at < 50; at++) await (await visit(at)).client.close();
    expect(watch.ms / 50).toBeLessThan(watch.allow(200));
  }, 20_000);

  it.each(TRANSPORTS)('B230 B232 B235 over %s continues from token to token', async (transport) => {
    const { access_token: token, refresh_token } = await login('enterprise');
    expect(await askAuth('/auth/validate', { token })).toMatchObject({ valid: true, plan: 'enterprise' });
    const client = await openClient({ url, transport, token });
    const { user_id } = await client.welcome();
    client.send('ping', { timestamp: 'now' });
    expect((await client.waitFor('pong')).fields.original_timestamp).toBe('now');
    expectOrder(await runToEnd(client, { message: QUESTION }));

    const watch = await Stopwatch.start();
    const next = await askAuth<LoginTokens>('/auth/refresh', { refresh_token });
    const again = await askAuth<LoginTokens>('/auth/refresh', { refresh_token: next.refresh_token });
    // The average of two: the machine may be busy once.
    expect(watch.ms / 2).toBeLessThan(watch.allow(500));

    const later = await openClient({ url, transport, token: again.access_token });
    expect(await later.welcome()).toMatchObject({ user_id });
    expectOrder(await runToEnd(later, { message: QUESTION }));
  });

  it.each(TRANSPORTS)('B231 over %s every bad token is turned away in less than a second', async (transport) => {
    const watch = await Stopwatch.start();
    const good = mintToken().token;
    const [head, claims, signature = ''] = good.split('.');
    const bad = [
      ['no token at all', 'INVALID_FORMAT'],
      [`${head}.${claims}.`, 'INVALID_FORMAT'],
      [`${head}.${claims}.${signature.split('').toReversed().join('')}`, 'VALIDATION_FAILED'],
      [mintToken({}, { expiresInSeconds: -60 }).token, 'TOKEN_EXPIRED'],
      [mintToken({ sub: '' }).token, 'VALIDATION_FAILED'],
    ] as const;
    for (const [token, code] of bad) {
      const tries = [await refused({ url, transport, token }), await refused({ url, transport, token })];
      expect([token, ...tries.map(({ error }) => error.code)]).toEqual([token, code, code]);
      expect(Math.min(...tries.map(({ tookMs }) => tookMs))).toBeLessThan(watch.allow(1_000));
    }
  });
});
