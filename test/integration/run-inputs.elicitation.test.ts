import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { inputRequired, inputResponse } from '@modelcontextprotocol/server';
import { AgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import type { InputAnswer } from '../../src/protocol/input.ts';
import type { Agent } from '../../src/runs/agent.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { RunExecutor } from '../../src/runs/run-executor.ts';
import { RunInputs } from '../../src/runs/run-inputs.ts';
import { Runs } from '../../src/runs/runs.ts';
import { type Core, NO_QUEUE, silentLogger, startCore } from '../support/core.ts';
import { startRun } from '../support/run-nodes.ts';
import { freshUserId } from '../support/tokens.ts';
import { HttpUpstream } from '../support/upstreams/http-upstream.ts';
import { type RunTool, text } from '../support/upstreams/mcp-script.ts';
import { httpRow, type UpstreamNode, upstreamNode } from '../support/upstreams/upstream-node.ts';

const agents = new AgentCatalogue([{ name: 'tester', description: 'a', tools: ['greet', 'visit'] }], 'tester');
const NAME = { type: 'object' as const, properties: { name: { type: 'string' as const } }, required: ['name'] };

/** Requests a name a given number of times; the request state counts the rounds. */
const greet: RunTool = ({ times = 1 }, { mcpReq }) => {
  const round = Number(mcpReq.requestState() ?? 0);
  if (round < Number(times)) {
    const who = inputRequired.elicit({ message: `Who? (${round})`, requestedSchema: NAME });
    return inputRequired({ inputRequests: { who }, requestState: String(round + 1) });
  }
  const answer = inputResponse(mcpReq.inputResponses, 'who');
  return text(JSON.stringify(answer));
};
const visit: RunTool = () => {
  const page = inputRequired.elicitUrl({ message: 'Log in', url: 'https://example.com/' });
  return inputRequired({ inputRequests: { page } });
};

let core: Core;
let upstream: HttpUpstream;
let userId: string;
let runs: Runs;
let claims: RunClaims;

beforeAll(async () => {
  core = await startCore();
  upstream = await HttpUpstream.start({ tools: { greet: { run: greet }, visit: { run: visit } } }, 'file');
  runs = new Runs({ ...core, queue: NO_QUEUE, agents, clock: systemClock }, { timeoutMs: 20_000 });
  claims = new RunClaims({ ...core, agents }, { timeoutMs: 20_000 });
});

beforeEach(() => {
  userId = freshUserId();
  upstream.requests.length = 0;
});

async function node(): Promise<UpstreamNode> {
  const asks = ['elicitation', 'url_elicitation'];
  const one = upstreamNode(core, [httpRow(upstream.url, ['greet', 'visit'], { asks })], {}, { userId });
  await one.discovered('greet');
  return one;
}

const calling =
  (tool: string, args: object): Agent =>
  async (_task, context) => {
    const outcome = await context.call(tool, { ...args });
    return { final_response: JSON.stringify(outcome), summary: '' };
  };

/** Executes the run as a worker of its own does. */
async function work(runId: string, agent: Agent, inputExpiresMs = 60_000) {
  const claimed = await claims.claim(userId, runId);
  if (claimed.outcome !== 'claimed') throw new Error(claimed.outcome);
  const { service: tools } = await node();
  const deps = { ...core, claims, agents, agent, tools, clock: systemClock, logger: silentLogger };
  return new RunExecutor(deps, { timeoutMs: 20_000, inputExpiresMs }).execute(claimed.run);
}

async function start(): Promise<string> {
  const runId = newId('run');
  await startRun(runs, { userId, runId, plan: 'one', threadId: 'thread_1' });
  return runId;
}

async function answer(runId: string, given: InputAnswer): Promise<void> {
  const [open] = (await runs.status(userId, runId)).input_requests ?? [];
  const inputs = new RunInputs({ ...core, queue: NO_QUEUE, clock: systemClock });
  await inputs.answer(userId, { runId, inputId: open?.input_id ?? '', answer: given });
}

const outcomeOf = async (runId: string) => JSON.parse((await runs.status(userId, runId)).final_response ?? '');
const calls = () => upstream.received('tools/call').length;

describe('a tool server that asks the user of a run', () => {
  it('gets the answers of a run that waits without a worker and without a reservation', async () => {
    const runId = await start();
    const agent = calling('greet', { times: 2 });
    for (const [round, name] of ['Ada', 'Grace'].entries()) {
      expect(await work(runId, agent)).toBe('waiting');
      expect(await core.redis.zcard(core.keys.user(userId).reservations)).toBe(0);
      expect((await runs.status(userId, runId)).input_requests).toMatchObject([
        {
          kind: 'form',
          message: `Who? (${round})`,
          schema: NAME,
          tool_name: 'greet',
          tool_call_id: expect.any(String),
        },
      ]);
      // A worker that takes over meanwhile asks nothing again.
      expect(await work(runId, agent)).toBe('waiting');
      expect(calls()).toBe(round + 1);
      await answer(runId, { action: 'accept', content: { name } });
    }
    expect(await work(runId, agent)).toBe('completed');
    expect(calls()).toBe(3);
    expect(JSON.stringify(await outcomeOf(runId))).toContain('Grace');
    const [record, ...more] = await (await node()).records();
    expect([record, more.length]).toMatchObject([{ tool: 'greet', status: 'success', units: 7 }, 0]);
  });

  it.each(['decline', 'cancel'] as const)('receives the choice of the user: %s', async (action) => {
    const runId = await start();
    const agent = calling('greet', {});
    expect(await work(runId, agent)).toBe('waiting');
    await answer(runId, { action });
    expect(await work(runId, agent)).toBe('completed');
    expect(JSON.stringify(await outcomeOf(runId))).toContain(action);
  });

  it('cannot make the user open an address', async () => {
    const runId = await start();
    expect(await work(runId, calling('visit', {}))).toBe('completed');
    expect(await outcomeOf(runId)).toMatchObject({ success: false, error: { code: 'TOOL_FAILED' } });
  });

  it('may ask eight times per call', async () => {
    const runId = await start();
    const agent = calling('greet', { times: 9 });
    for (let round = 0; round < 8; round++) {
      expect(await work(runId, agent)).toBe('waiting');
      await answer(runId, { action: 'accept', content: { name: 'Ada' } });
    }
    expect(await work(runId, agent)).toBe('completed');
    expect(await outcomeOf(runId)).toMatchObject({ success: false, error: { code: 'TOOL_FAILED' } });
  });
});
