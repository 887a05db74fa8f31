import { mainThreadMicros } from '../../../bench/lib/cpu.ts';
import type { Shape } from './shapes.ts';

/** Maximum cost of an input beyond the fixed cost of its request, in microseconds of CPU per kB (1,000 bytes). */
export const BOUND_MICROS_PER_KB = 50;

/** A point at which the product reads foreign input. */
export interface Surface {
  /** A row of the table: surfaces of one family share a row, which shows the worst of them. */
  readonly family: string;
  readonly name: string;
  /** Characters of the smaller and the larger input. */
  readonly sizes: readonly [number, number];
  readonly shapes: readonly Shape[];
  /** Sends one input and resolves when the server has processed it. */
  readonly send: (input: string) => Promise<unknown>;
}

export interface Cell {
  readonly family: string;
  readonly surface: string;
  readonly shape: string;
  /** The slope between the two sizes. */
  readonly microsPerKb: number;
}

interface Effort {
  readonly rounds: number;
  readonly repetitions: number;
}

/** Enough to detect ten times the bound; a cell that looks expensive is measured again. */
const GLANCE: Effort = { rounds: 1, repetitions: 2 };
const LOOK: Effort = { rounds: 2, repetitions: 4 };
const STARE: Effort = { rounds: 6, repetitions: 12 };
/** Cells above this fraction of the bound are measured again with more effort. */
const SUSPICIOUS = 0.5;
/** Further measurements of a cell above the bound. */
const MOST_STARES = 5;
const HOPELESS = BOUND_MICROS_PER_KB * 10;
const WORKERS = 2;
const ANSWER_TIMEOUT_MS = 15_000;

/**
 * Measures the CPU time that the main threads of processes use for inputs, in which they serve no other client. It uses
 * CPU time, which other load disturbs little, and the minimum of several rounds, because each disturbance adds.
 */
export class CpuMeter {
  readonly #pids: readonly number[];

  constructor(pids: readonly number[]) {
    this.#pids = pids;
  }

  /** @param thorough measures every cell with full effort, for the table; otherwise only those that look expensive */
  async measure(surface: Surface, { thorough }: { readonly thorough: boolean }): Promise<Cell[]> {
    const [small] = surface.sizes;
    const plain = 'a'.repeat(small);
    await this.#cost(surface, plain, { rounds: 1, repetitions: 4 });
    const fixed = await this.#cost(surface, plain, { rounds: 2, repetitions: 4 });
    const cells: Cell[] = [];
    for (const shape of surface.shapes) {
      cells.push(cellOf(surface, shape, await this.#slope(surface, shape, { fixed, thorough })));
    }
    return cells;
  }

  async #slope(
    surface: Surface,
    shape: Shape,
    { fixed, thorough }: { readonly fixed: number; readonly thorough: boolean },
  ): Promise<number> {
    const [small, large] = surface.sizes.map((size) => shape.make(size)) as [string, string];
    const kilobytes = (Buffer.byteLength(large) - Buffer.byteLength(small)) / 1_000;
    const glance = async () => ((await this.#cost(surface, large, GLANCE)) - fixed) / kilobytes;
    let glanced = await glance();
    // A cell at ten times the bound in three measurements is no disturbance, and a precise measurement would take long.
    for (let again = 0; again < 2 && glanced > HOPELESS; again++) glanced = Math.min(glanced, await glance());
    if (glanced > HOPELESS) return glanced;
    if (!thorough && glanced < BOUND_MICROS_PER_KB * SUSPICIOUS) return Math.max(0, glanced);
    const slope = async (effort: Effort) => {
      const base = await this.#cost(surface, small, effort);
      return Math.max(0, ((await this.#cost(surface, large, effort)) - base) / kilobytes);
    };
    const looked = await slope(LOOK);
    if (looked < BOUND_MICROS_PER_KB * SUSPICIOUS) return looked;
    let least = Math.min(looked, await slope(STARE));
    // Test files that keep all cores busy can double the CPU time of a cell, through shared caches; they end in seconds.
    for (let again = 0; again < MOST_STARES && least >= BOUND_MICROS_PER_KB; again++) {
      least = Math.min(least, await slope(STARE));
    }
    return least;
  }

  /** Returns the microseconds of one send. */
  async #cost(surface: Surface, input: string, { rounds, repetitions }: Effort): Promise<number> {
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < rounds; round++) {
      const before = this.#read();
      const worker = async () => {
        for (let at = 0; at < repetitions / WORKERS; at++) await answered(surface, input);
      };
      await Promise.all(Array.from({ length: WORKERS }, worker));
      least = Math.min(least, (this.#read() - before) / repetitions);
    }
    return least;
  }

  #read(): number {
    return this.#pids.reduce((sum, pid) => sum + mainThreadMicros(pid), 0);
  }
}

async function answered({ name, send }: Surface, input: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${name}: no answer to ${input.slice(0, 64)}…`)), ANSWER_TIMEOUT_MS);
  });
  await Promise.race([send(input), late]).finally(() => clearTimeout(timer));
}

function cellOf({ family, name }: Surface, shape: Shape, microsPerKb: number): Cell {
  return { family, surface: name, shape: shape.name, microsPerKb };
}
