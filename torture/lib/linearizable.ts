/** An operation on one object, from its request to its answer. */
export interface TimedOperation<Input, Output> {
  readonly invoked: number;
  /** `Infinity` if the client got no answer: the operation takes effect at any later time, or never. */
  readonly returned: number;
  readonly input: Input;
  /** undefined if the client got no answer. */
  readonly output: Output | undefined;
}

/** A sequential specification: what an object that does one operation at a time answers. */
export interface Model<State, Input, Output> {
  readonly initial: State;
  /** Returns the next state; undefined if the operation cannot have this output in this state. */
  readonly step: (state: State, input: Input, output: Output | undefined) => State | undefined;
  /** Whether the operation changes nothing in any state in which it is possible. */
  readonly isRead: (input: Input, output: Output | undefined) => boolean;
}

export type Verdict<Input, Output> =
  | { readonly outcome: 'linearizable' }
  | {
      /** `undecided`: the search reached its bound. */
      readonly outcome: 'impossible' | 'undecided';
      /** The operation that no order explains, of the longest explained prefix. */
      readonly stuckAt: TimedOperation<Input, Output> | undefined;
    };

/** Steps of a search. A good history of n operations needs about n. */
const MAX_STEPS = 200_000;

/** A point of the search: which operations have taken effect, and what is left to try. */
interface Frame<State> {
  /** One byte per operation. */
  readonly done: Buffer;
  readonly depth: number;
  readonly state: State;
  /** Indexes of the operations that may be next. */
  readonly candidates: number[];
}

/**
 * Decides whether one order of the operations explains every answer, where each operation takes effect at one moment
 * between its request and its answer (Herlihy and Wing 1990). The search is that of Wing and Gong with the memory of
 * Lowe, as in Porcupine. States are compared by their JSON. Two rules keep the search small: a read that is possible now
 * is taken without alternatives; and of equal operations only the one that is answered first is tried.
 */
export function linearize<State, Input, Output>(
  history: readonly TimedOperation<Input, Output>[],
  { initial, step, isRead }: Model<State, Input, Output>,
  maxSteps: number = MAX_STEPS,
): Verdict<Input, Output> {
  const operations = history.toSorted((a, b) => a.invoked - b.invoked || a.returned - b.returned);
  const kinds = operations.map(({ input, output }) => JSON.stringify([input, output ?? null, output === undefined]));
  const known = operations.flatMap(({ output }, at) => (output === undefined ? [] : at));
  const seen = new Set<string>();

  const open = (done: Buffer): number[] => {
    let deadline = Number.POSITIVE_INFINITY;
    const found: number[] = [];
    for (const [at, { invoked, returned }] of operations.entries()) {
      if (invoked > deadline) break;
      if (done[at] === 1) continue;
      deadline = Math.min(deadline, returned);
      found.push(at);
    }
    // An operation that began after another one was answered comes later.
    const possible = found.filter((at) => (operations[at]?.invoked ?? 0) <= deadline);
    return firstOfEach(possible.toSorted((a, b) => returnedAt(a) - returnedAt(b)));
  };
  const returnedAt = (at: number) => operations[at]?.returned ?? 0;
  const firstOfEach = (sorted: readonly number[]) => {
    const kindsSeen = new Set<string | undefined>();
    return sorted.filter((at) => !kindsSeen.has(kinds[at]) && kindsSeen.add(kinds[at]));
  };

  let steps = 0;
  const none = Buffer.alloc(operations.length);
  let deepest: Pick<Frame<State>, 'done' | 'depth'> = { done: none, depth: 0 };
  const frames: Frame<State>[] = [{ done: none, depth: 0, state: initial, candidates: open(none) }];
  for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
    const { done, depth, state, candidates } = frame;
    if (known.every((at) => done[at] === 1)) return { outcome: 'linearizable' };
    if (depth > deepest.depth) deepest = frame;
    steps += 1;
    if (steps > maxSteps) return { outcome: 'undecided', stuckAt: firstOpen(deepest.done) };
    const at = candidates.shift();
    if (at === undefined) {
      frames.pop();
      continue;
    }
    const operation = operations[at];
    if (!operation) continue;
    const next = step(state, operation.input, operation.output);
    if (next === undefined) continue;
    if (operation.output !== undefined && isRead(operation.input, operation.output)) candidates.length = 0;
    const after = Buffer.from(done);
    after[at] = 1;
    const key = after.toString('latin1') + JSON.stringify(next);
    if (seen.has(key)) continue;
    seen.add(key);
    frames.push({ done: after, depth: depth + 1, state: next, candidates: open(after) });
  }
  return { outcome: 'impossible', stuckAt: firstOpen(deepest.done) };

  function firstOpen(done: Buffer): TimedOperation<Input, Output> | undefined {
    const left = operations.filter(({ output }, at) => output !== undefined && done[at] !== 1);
    return left.toSorted((a, b) => a.returned - b.returned)[0];
  }
}
