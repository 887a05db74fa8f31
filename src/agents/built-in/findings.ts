import type { Fields } from '../../protocol/messages.ts';
import type { Thread } from '../../threads/threads.ts';
import type { RunState } from '../../tools/built-in/agent-tools.ts';
import type { WorkloadAnalysis } from '../../tools/built-in/workload-tools.ts';
import type { ToolOutcome } from '../../tools/outcome.ts';

/** Describes the outcome of a tool in sentences. Every figure in them comes from the outcome. */
export function findings(tool: string, outcome: ToolOutcome): string[] {
  if (!outcome.success) return refusal(tool, outcome.error ?? {});
  return READERS[tool]?.(outcome.result as never) ?? [`${tool} answered: ${JSON.stringify(outcome.result)}`];
}

const READERS: Readonly<Record<string, (result: never) => string[]>> = {
  analyze_workload: workload,
  system_health: health,
  get_thread_history: history,
  create_thread: (result: { title: string; thread_id: string; threads: number }) => [
    `I made the thread "${result.title}" (${result.thread_id}); you have ${count(result.threads, 'thread')} now.`,
  ],
  list_agents: agents,
  get_agent_status: runs,
};

function refusal(tool: string, error: Fields): string[] {
  const upgrade = typeof error.upgrade_path === 'string' ? ` The ${error.upgrade_path} plan includes it.` : '';
  return [`I could not use ${tool}: ${String(error.message)}.${upgrade}`.replace('..', '.')];
}

function workload(result: WorkloadAnalysis): string[] {
  const period = `the last ${count(result.period_hours, 'hour')}`;
  if (result.calls === 0) {
    return [
      `No tool call of yours is on record in ${period} before this one, so there is no load to speak of and nothing was billed.`,
      'Ask again after a few runs and I can compare rates, durations and costs.',
    ];
  }
  const [dearest] = result.by_tool;
  const sentences = [
    `In ${period} you made ${count(result.calls, 'tool call')} for ${count(result.units, 'unit')}, ` +
      `with ${count(result.errors, 'failure')} (${percent(result.error_rate)}).`,
    `Half of them took ${result.p50_ms} ms or less, 95 % took ${result.p95_ms} ms or less.`,
  ];
  if (dearest) {
    const share = result.units > 0 ? ` (${percent(dearest.units / result.units)} of your units)` : '';
    sentences.push(
      `${dearest.tool} costs the most: ${count(dearest.calls, 'call')}, ${count(dearest.units, 'unit')}${share}.`,
    );
  }
  sentences.push(`At this rate a month comes to about ${count(result.projected_month_units, 'unit')}.`, advice(result));
  return sentences;
}

function advice({ error_rate, trend, by_tool }: WorkloadAnalysis): string {
  const [dearest] = by_tool;
  if (error_rate > 0.1) return 'Look at the failing calls first: they are more than one in ten.';
  if (trend === 'rising') return 'The load is rising: check that your plan has room for it.';
  if (dearest && dearest.calls > 10) return `To spend less, ask for ${dearest.tool} less often or over longer periods.`;
  return 'Nothing here calls for action; I would look again once there is more traffic.';
}

interface Health {
  readonly status: string;
  readonly warnings: readonly string[];
  readonly store: { readonly ping_ms: number; readonly used_memory_bytes: number };
  readonly queue: { readonly waiting: number; readonly active: number };
  readonly process: { readonly uptime_s: number; readonly event_loop_delay_ms: number };
}

function health({ status, warnings, store, queue, process: own }: Health): string[] {
  return [
    `The system is ${status}${warnings.length > 0 ? `: ${warnings.join('; ')}` : ''}.`,
    `The store answers in ${store.ping_ms} ms and holds ${(store.used_memory_bytes / 2 ** 20).toFixed(1)} MiB; ` +
      `${count(queue.active, 'run')} active and ${queue.waiting} waiting.`,
    `This process has been up for ${count(own.uptime_s, 'second')}, its event loop is at most ${own.event_loop_delay_ms} ms late.`,
  ];
}

function history(result: { threads?: readonly Thread[]; messages?: readonly unknown[]; thread_id?: string }): string[] {
  if (result.messages)
    return [`The thread ${result.thread_id} has ${count(result.messages.length, 'message')} to show.`];
  const threads = result.threads ?? [];
  const [latest] = threads;
  if (!latest) return ['You have no threads yet; your next message begins one.'];
  const titles = threads.slice(0, 3).map(({ title }) => `"${title}"`);
  return [
    `You have ${count(threads.length, 'thread')}, the latest from ${latest.updated_at}.`,
    `The most recent: ${titles.join(', ')}.`,
  ];
}

function agents(result: { agents: readonly { name: string; description: string }[]; count: number }): string[] {
  return [
    `${count(result.count, 'agent')} can be asked here.`,
    ...result.agents.map(({ name, description }) => `${name}: ${description}`),
  ];
}

interface RunStates {
  readonly count?: number;
  readonly by_status?: Readonly<Record<string, number>>;
  readonly runs?: readonly RunState[];
  readonly run?: RunState;
}

function runs(result: RunStates): string[] {
  if (result.run) return [runState(result.run)];
  const states = Object.entries(result.by_status ?? {}).map(([status, number]) => `${number} ${status}`);
  const ended = (result.runs ?? []).flatMap(({ duration_ms }) => (duration_ms === null ? [] : [duration_ms]));
  const slowest = ended.length > 0 ? ` The slowest of those that ended took ${Math.max(...ended)} ms.` : '';
  const [latest] = result.runs ?? [];
  return [
    `Of your ${count(result.count ?? 0, 'recent run')}: ${states.join(', ') || 'none'}.${slowest}`,
    ...(latest ? [`The latest: ${runState(latest)}`] : []),
  ];
}

function runState({ run_id, agent, status, accepted_at, duration_ms }: RunState): string {
  const duration = duration_ms === null ? '' : ` after ${duration_ms} ms`;
  return `${run_id} of ${agent}, accepted at ${accepted_at}, is ${status}${duration}.`;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1).replace(/\.0$/, '')} %`;
}
