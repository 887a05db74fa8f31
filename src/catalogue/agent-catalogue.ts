import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';

const AgentRow = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9_]{0,63}$/),
  description: z.string().min(1),
  /** The tools that it may choose; each call also needs the permission of the caller. */
  tools: z.array(z.string()).min(1),
  /** System instructions for the model; default: the description. */
  instructions: z.string().min(1).max(8_000).optional(),
  /** Name of the model at the endpoint; default: `AGENT_MODEL_NAME`. */
  model: z.string().min(1).max(200).optional(),
});

/** Price units per 1,000 tokens. */
const Price = z.number().min(0).max(1_000_000);
const ModelPrice = z.strictObject({ input: Price, output: Price });
export type ModelPrice = Readonly<z.infer<typeof ModelPrice>>;
const FREE: ModelPrice = { input: 0, output: 0 };
/** The row of `model_prices` for models without their own row. */
const ANY_MODEL = '*';

const AgentsFile = z
  .strictObject({
    default: z.string(),
    agents: z.array(AgentRow).min(1),
    model_prices: z.record(z.string(), ModelPrice).default({}),
  })
  .refine((file) => file.agents.some(({ name }) => name === file.default), {
    message: 'names no agent of the file',
    path: ['default'],
  });

export type AgentDescription = Readonly<z.infer<typeof AgentRow>>;

/** The available agents, from `config/agents.json`. */
export class AgentCatalogue {
  readonly all: readonly AgentDescription[];
  readonly #default: string;
  readonly #prices: Readonly<Record<string, ModelPrice>>;

  constructor(
    agents: readonly AgentDescription[],
    defaultName: string,
    prices: Readonly<Record<string, ModelPrice>> = {},
  ) {
    this.all = agents;
    this.#default = defaultName;
    this.#prices = prices;
  }

  /** Returns the agent with that name, or the default agent for no name; undefined when it does not exist. */
  get(name: string | undefined): AgentDescription | undefined {
    return this.all.find((agent) => agent.name === (name ?? this.#default));
  }

  /** Returns the token prices of a model. */
  price(model: string): ModelPrice {
    return this.#prices[model] ?? this.#prices[ANY_MODEL] ?? FREE;
  }
}

const FILE_NAME = 'agents.json';

/**
 * Reads `agents.json` from `folder`; if the folder has none, reads Tollgate's own file.
 * @throws Error naming the file and the field of each mistake
 */
export function loadAgentCatalogue(folder?: string): AgentCatalogue {
  const customFile = folder === undefined ? undefined : pathToFileURL(join(folder, FILE_NAME));
  const file =
    customFile && existsSync(customFile) ? customFile : new URL(`../../config/${FILE_NAME}`, import.meta.url);
  const parsed = AgentsFile.safeParse(JSON.parse(readFileSync(file, 'utf8')));
  if (!parsed.success) throw new Error(`${file.pathname}:\n${z.prettifyError(parsed.error)}`);
  return new AgentCatalogue(parsed.data.agents, parsed.data.default, parsed.data.model_prices);
}
