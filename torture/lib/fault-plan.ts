import { Random } from '../../test/support/chaos/random.ts';

/** A kind of fault as the plan sees it. */
export interface FaultKind {
  readonly kind: string;
  /** Names of the targets; one target has one fault at a time. */
  readonly targets: readonly string[];
  /** Faults of one group do not overlap, whatever their targets; default: those of one target. */
  readonly group?: string | undefined;
  /** Longest duration, ms. */
  readonly maxMs: number;
}

export interface PlannedFault {
  readonly id: number;
  readonly kind: string;
  readonly target: string;
  /** One group has one fault at a time. */
  readonly group: string;
  /** Milliseconds from the first operation. */
  readonly at: number;
  readonly forMs: number;
}

export interface PlanOptions {
  readonly seed: number;
  readonly durationMs: number;
  readonly kinds: readonly FaultKind[];
  /** Mean number of faults per second. */
  readonly perSecond: number;
}

const MIN_MS = 300;
/** Faults in progress at one moment. */
export const MAX_AT_ONCE = 3;
/** A target recovers this long before its next fault. */
const REST_MS = 1_000;
/** No fault lasts longer than this share of the round. */
const MAX_SHARE = 0.4;

/**
 * Draws faults for a round: the same seed and options give the same plan. Each kind is drawn once before any is drawn
 * again, so that a short round has as many kinds as possible. Faults overlap, and all end within the round.
 */
export function planFaults({ seed, durationMs, kinds, perSecond }: PlanOptions): PlannedFault[] {
  const random = new Random(seed);
  const count = Math.max(1, Math.round((perSecond * durationMs) / 1_000));
  const plan: PlannedFault[] = [];
  let waiting: FaultKind[] = [];
  for (let drawn = 0; drawn < count && kinds.length > 0; drawn++) {
    if (waiting.length === 0) waiting = random.shuffled(kinds);
    const kind = waiting.pop();
    if (!kind) break;
    const target = kind.targets[random.below(kind.targets.length)] ?? '';
    const longest = Math.max(MIN_MS, Math.min(kind.maxMs, MAX_SHARE * durationMs));
    const forMs = Math.round(MIN_MS + random.next() * (longest - MIN_MS));
    // A few attempts to find a free moment; a crowded plan has fewer faults.
    for (let attempt = 0; attempt < 20; attempt++) {
      const at = Math.round(random.next() * Math.max(0, durationMs - forMs));
      const fault = { id: plan.length + 1, kind: kind.kind, target, group: kind.group ?? target, at, forMs };
      if (!fits(fault, plan)) continue;
      plan.push(fault);
      break;
    }
  }
  return plan.toSorted((a, b) => a.at - b.at);
}

function fits(fault: PlannedFault, plan: readonly PlannedFault[]): boolean {
  const overlapping = plan.filter(({ at, forMs }) => fault.at < at + forMs && at < fault.at + fault.forMs);
  if (overlapping.length >= MAX_AT_ONCE) return false;
  const ofGroup = plan.filter(({ group }) => group === fault.group);
  return ofGroup.every(({ at, forMs }) => {
    return fault.at >= at + forMs + REST_MS || at >= fault.at + fault.forMs + REST_MS;
  });
}
