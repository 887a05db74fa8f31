import { check } from './checker.ts';
import { FAULTS } from './faults.ts';
import { type HistoryLine, linesOf } from './history.ts';
import type { Violation } from './promises.ts';

export interface RoundResult {
  readonly seed: number;
  readonly violations: readonly Violation[];
  readonly faults: readonly FaultResult[];
  readonly operations: Readonly<Record<string, OperationCounts>>;
  /** Durable events that arrived, over all connections, and records of the ledger. */
  readonly events: number;
  readonly records: number;
  readonly seconds: number;
}

export interface OperationCounts {
  ok: number;
  failed: number;
  unknown: number;
}

export interface FaultResult {
  readonly kind: string;
  readonly target: string;
  readonly at: number;
  readonly healedAt: number;
  /** From the healing to the end of the first run that began after it, ms; undefined if the round ended before. */
  readonly recoveryMs: number | undefined;
}

/** The figures of one kind of fault over all rounds. */
export interface FaultSummary {
  readonly kind: string;
  readonly what: string;
  readonly promise: string;
  readonly count: number;
  /** Violations of the rounds in which the fault occurred. */
  readonly violations: number;
  readonly recoveryP50: number | undefined;
  readonly recoveryP99: number | undefined;
  readonly seeds: readonly number[];
}

/** Checks the history of a round and computes its figures. */
export function resultOf(seed: number, history: readonly HistoryLine[]): RoundResult {
  const last = history.reduce((latest, line) => ('at' in line ? Math.max(latest, line.at) : latest), 0);
  return {
    seed,
    violations: check(history),
    faults: faultsOf(history),
    operations: countsOf(history),
    events: linesOf(history, 'event').length,
    records: linesOf(history, 'ledger').reduce((sum, { records }) => sum + records.length, 0),
    seconds: Math.round(last / 1_000),
  };
}

function faultsOf(history: readonly HistoryLine[]): FaultResult[] {
  const healed = new Map(linesOf(history, 'healed').map(({ id, at }) => [id, at]));
  const runs = new Map(
    linesOf(history, 'invoked').flatMap(({ id, op, at }) => (op === 'run' ? [[id, at] as const] : [])),
  );
  const ends = linesOf(history, 'ok').filter(({ id }) => runs.has(id));
  return linesOf(history, 'fault').flatMap(({ id, kind, target, at }) => {
    const healedAt = healed.get(id);
    if (healedAt === undefined) return [];
    const first = ends.find((end) => (runs.get(end.id) ?? 0) >= healedAt && end.end === 'agent_completed');
    return [{ kind, target, at, healedAt, recoveryMs: first && first.at - healedAt }];
  });
}

function countsOf(history: readonly HistoryLine[]): Record<string, OperationCounts> {
  const names = new Map(linesOf(history, 'invoked').map(({ id, op }) => [id, op]));
  const counts: Record<string, OperationCounts> = {};
  for (const line of history) {
    if (line.t !== 'ok' && line.t !== 'failed' && line.t !== 'unknown') continue;
    const name = names.get(line.id) ?? 'without begin';
    counts[name] ??= { ok: 0, failed: 0, unknown: 0 };
    counts[name][line.t] += 1;
  }
  return counts;
}

/** Returns one row per kind of fault, also of those that did not occur. */
export function summaries(rounds: readonly RoundResult[]): FaultSummary[] {
  return FAULTS.flatMap(({ kind, what, promise }) => {
    const having = rounds.filter(({ faults }) => faults.some((fault) => fault.kind === kind));
    const faults = having.flatMap((round) => round.faults.filter((fault) => fault.kind === kind));
    const recoveries = faults.flatMap(({ recoveryMs }) => recoveryMs ?? []).toSorted((a, b) => a - b);
    return [
      {
        ...{ kind, what, promise, count: faults.length },
        violations: having.reduce((sum, { violations }) => sum + violations.length, 0),
        recoveryP50: quantile(recoveries, 0.5),
        recoveryP99: quantile(recoveries, 0.99),
        seeds: having.map(({ seed }) => seed),
      },
    ];
  });
}

/** The nearest rank in sorted values; undefined without any. */
function quantile(sorted: readonly number[], share: number): number | undefined {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}
