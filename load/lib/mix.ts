import { readFileSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { UserError } from '../../scripts/lib/user-error.ts';

export const TRANSPORTS = ['socketio_websocket', 'socketio_polling', 'websocket'] as const;
export type Transport = (typeof TRANSPORTS)[number];

/** Kinds of iterations. `resume`: the client cuts its own connection and resumes. */
export const TURN_KINDS = ['agent_request', 'tool_call', 'ping', 'resume'] as const;
export type IterationKind = (typeof TURN_KINDS)[number];

const share = z.number().min(0).default(0);
const positiveSum = (shares: Record<string, number>) => Object.values(shares).some((value) => value > 0);

const MixFile = z.strictObject({
  /** Relative weights of the transports among the users: 2 and 1 is the same as 50 and 25. */
  transports: z
    .strictObject({ socketio_websocket: share, socketio_polling: share, websocket: share })
    .refine(positiveSum, 'one share must be above 0'),
  /** Relative weights of the kinds of iterations. */
  turns: z
    .strictObject({ agent_request: share, tool_call: share, ping: share, resume: share })
    .refine(positiveSum, 'one share must be above 0'),
  /** Messages for agents, used in rotation. */
  messages: z.array(z.string().min(1)).min(1).default(['How is my workload doing?']),
  tools: z
    .array(z.strictObject({ tool: z.string().min(1), arguments: z.record(z.string(), z.unknown()).default({}) }))
    .min(1)
    .default([{ tool: 'list_agents', arguments: {} }]),
  /** Idle time of a user after an iteration, in ms, uniformly distributed. */
  think_ms: z
    .strictObject({ min: z.number().min(0), max: z.number().min(0) })
    .refine(({ min, max }) => min <= max, 'min must not be above max')
    .default({ min: 0, max: 0 }),
});
export type Mix = z.infer<typeof MixFile>;

const MIXES = 'load/mixes';

/**
 * Reads a mix.
 * @param name a file, or the name of one in `load/mixes`
 * @throws UserError naming the file and each invalid field
 */
export function readMix(name: string): Mix {
  const isName = /^[\w-]+$/.test(name);
  const file = isName ? join(PROJECT_ROOT, MIXES, `${name}.json`) : name;
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(isAbsolute(file) ? file : join(process.cwd(), file), 'utf8'));
  } catch (cause) {
    throw new UserError(`The mix ${name} cannot be read: ${(cause as Error).message}`, { cause });
  }
  const parsed = MixFile.safeParse(json);
  if (parsed.success) return parsed.data;
  throw new UserError(`The mix ${name} is invalid:\n${z.prettifyError(parsed.error)}`);
}

/**
 * Picks names in proportion to their weights and evenly: after any number of picks each name is within one of its
 * share. Random picks would give a small number of users a different mix in every run.
 */
export class WeightedPicker<Name extends string> {
  readonly #shares: readonly (readonly [Name, number])[];
  readonly #sum: number;
  readonly #credit = new Map<Name, number>();

  constructor(shares: Readonly<Record<Name, number>>) {
    this.#shares = (Object.entries(shares) as [Name, number][]).filter(([, value]) => value > 0);
    this.#sum = this.#shares.reduce((sum, [, value]) => sum + value, 0);
  }

  /** Returns the name that is furthest behind its share. */
  pick(): Name {
    let chosen: Name | undefined;
    for (const [name, value] of this.#shares) {
      const credit = (this.#credit.get(name) ?? 0) + value;
      this.#credit.set(name, credit);
      if (chosen === undefined || credit > (this.#credit.get(chosen) ?? 0)) chosen = name;
    }
    if (chosen === undefined) throw new Error('all weights are 0');
    this.#credit.set(chosen, (this.#credit.get(chosen) ?? 0) - this.#sum);
    return chosen;
  }
}
