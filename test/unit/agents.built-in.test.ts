import { describe, expect, it } from '@jest/globals';
import { builtInAgent } from '../../src/agents/built-in/built-in-agent.ts';
import { findings } from '../../src/agents/built-in/findings.ts';
import { choose } from '../../src/agents/built-in/intents.ts';
import { loadAgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';

import { analyzeWorkload } from '../../src/tools/built-in/workload-tools.ts';
import type { ToolOutcome } from '../../src/tools/outcome.ts';

const agents = loadAgentCatalogue();
const catalogue = new Catalogues().tools;
const TRIAGE = agents.get(undefined)?.tools ?? [];
const NOW = Date.parse('2026-03-04T12:00:00Z');

const chosen = (message: string, tools: readonly string[] = TRIAGE) => choose(message, tools).map(({ tool }) => tool);

function outcome(result: unknown): ToolOutcome {
  return { success: true, result, duration_ms: 1, usage_record_id: 'usage_1' };
}

/** The results of the tools in a deployment without activity. */
const QUIET: Record<string, unknown> = {
  analyze_workload: analyzeWorkload([], 24, NOW),
  system_health: {
    status: 'healthy',
    warnings: [],
    store: { ping_ms: 0.2, used_memory_bytes: 1_048_576 },
    queue: { waiting: 0, active: 1, failed: 0 },
    process: { uptime_s: 1, memory_bytes: 1, event_loop_delay_ms: 1 },
  },
  create_thread: { thread_id: 'thread_1', title: 'x', threads: 1 },
  get_thread_history: { threads: [], count: 0 },
  list_agents: { agents: agents.all, count: agents.all.length },
  get_agent_status: {
    runs: [{ run_id: 'run_1', agent: 'triage_agent', status: 'running', duration_ms: null }],
    count: 1,
    by_status: { running: 1 },
  },
};

const REFUSED: ToolOutcome = {
  success: false,
  error: { code: 'PERMISSION_DENIED', message: 'Missing permissions: analytics', upgrade_path: 'pro' },
  duration_ms: 0,
  usage_record_id: null,
};

/** Runs the agent over given outcomes; a tool without one is refused. */
async function ask(message: string, results: Record<string, unknown>, tools: readonly string[] = TRIAGE) {
  const called: string[] = [];
  const thoughts: string[] = [];
  const task = {
    message,
    threadId: 'thread_1',
    tools,
    caller: { plan: 'pro', permissions: [], roles: [], featureFlags: {} },
    degraded: false,
  };
  const answer = await builtInAgent(task, {
    think: async (thought) => void thoughts.push(thought),
    call: async (tool) => {
      called.push(tool);
      return tool in results ? outcome(results[tool]) : REFUSED;
    },
  });
  return { ...answer, called, thoughts };
}

describe('the choice of tools', () => {
  it.each([
    ['How is my workload doing?', 'analyze_workload'],
    ['Analyse the market for me', 'analyze_workload'],
    ['What do I spend, and what will the bill be?', 'analyze_workload'],
    ['Is the system healthy, or is Redis slow?', 'system_health'],
    ['Start a thread called "Migration"', 'create_thread'],
    ['What did we discuss earlier in this conversation?', 'get_thread_history'],
    ['What can you do? Which agents are there?', 'list_agents'],
    ['Has my run finished?', 'get_agent_status'],
  ])('B218 fits the message: %s', (message, tool) => {
    expect(chosen(message)[0]).toBe(tool);
  });

  it('looks at the beginnings of words', () => {
    expect(chosen('Is my run over?')).toEqual(['get_agent_status']);
    expect(chosen('Should I prune Redis?')).toEqual(['system_health']);
  });

  it('finds a word also behind another one that contains it', () => {
    expect(chosen('Is the prune run over?')).toEqual(['get_agent_status']);
    expect(chosen('Was the discussion in that chat?')).toEqual(['get_thread_history']);
  });

  it('is never more than two tools, and never one that the agent does not have', () => {
    const everything = 'usage cost workload health system thread history agents help run status progress new thread';
    expect(chosen(everything)).toHaveLength(2);
    for (const { tools } of agents.all) {
      for (const message of [everything, 'hello', 'How is Redis?', 'my workload']) {
        const names = chosen(message, tools);
        expect(names.length).toBeGreaterThan(0);
        expect(tools).toEqual(expect.arrayContaining(names));
      }
    }
  });

  it('is the usage and the runs when the message is about nothing in particular', () => {
    expect(chosen('hello')).toEqual(['analyze_workload', 'get_agent_status']);
    expect(chosen('👋')).toEqual(['analyze_workload', 'get_agent_status']);
  });

  it('is always one whose arguments the tool accepts', () => {
    const long = `Start a new thread about ${'x'.repeat(5_000)}`;
    const messages = ['my usage this month', 'cost of the week', 'usage since yesterday', 'usage in the last hour'];
    for (const message of [...messages, long, 'new thread called ""', 'new thread called ...', 'new thread about !']) {
      for (const { tool, args } of choose(message, TRIAGE)) {
        expect([message.slice(0, 40), catalogue.get(tool)?.argumentsProblem(args)]).toEqual([
          message.slice(0, 40),
          undefined,
        ]);
      }
    }
  });

  it.each([
    ['my usage this month', 720],
    ['my usage this week', 168],
    ['my usage since yesterday', 48],
    ['my usage in the last hour', 1],
    ['my usage', 24],
  ])('asks for the period of "%s"', (message, hours) => {
    expect(choose(message, TRIAGE)[0]?.args).toEqual({ hours });
  });

  it.each([
    ['Create a thread called "Plan B".', 'Plan B'],
    ['Create a thread about the migration!', 'the migration'],
    ['Create a thread', 'Create a thread'],
  ])('titles the thread of "%s"', (message, title) => {
    expect(choose(message, TRIAGE)[0]).toEqual({ tool: 'create_thread', args: { title } });
  });
});

describe('the answer', () => {
  it.each(Object.keys(QUIET))('B218 has at least 50 characters when all it knows comes from %s', (tool) => {
    const text = findings(tool, outcome(QUIET[tool])).join(' ');
    expect(`${text} [${text.length}]`).toMatch(/^.{50,} \[\d+\]$/s);
  });

  it('says what the tools found, in their figures', async () => {
    const { final_response, summary, called } = await ask('Is Redis healthy?', QUIET);
    expect(called).toEqual(['system_health']);
    expect(final_response).toContain('The system is healthy');
    expect(final_response).toContain('0.2 ms');
    expect(final_response).toContain('1.0 MiB');
    expect(final_response.startsWith(summary)).toBe(true);
  });

  it('B76 says what was refused and which plan has it, and still finds something', async () => {
    const { analyze_workload: _refused, ...open } = QUIET;
    const { final_response, called } = await ask('How is my workload?', open);
    expect(called).toEqual(['analyze_workload', 'get_agent_status', 'get_thread_history']);
    expect(final_response).toContain('I could not use analyze_workload: Missing permissions: analytics.');
    expect(final_response).toContain('The pro plan includes it.');
    expect(final_response).toContain('Of your 1 recent run');
  });

  it('falls back to tools that the agent has, not to others', async () => {
    const { analyze_workload: _refused, ...open } = QUIET;
    const tools = agents.get('usage_agent')?.tools ?? [];
    const { called } = await ask('How is my workload?', open, tools);
    expect(tools).toEqual(expect.arrayContaining(called));
  });

  it('is given also when every tool is refused', async () => {
    const { final_response, summary, thoughts } = await ask('How is my workload?', {});
    expect(final_response.length).toBeGreaterThanOrEqual(50);
    expect(summary).not.toBe('');
    expect(thoughts.length).toBeGreaterThan(0);
  });

  it('does not invent a sentence for a tool it does not know', () => {
    expect(findings('cost_analyzer', outcome({ total: 7 }))).toEqual(['cost_analyzer answered: {"total":7}']);
  });
});
