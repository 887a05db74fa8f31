import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { ModelRow } from './model-settings.ts';
import { Instructions, Model, REMOTE_KINDS, type RemoteKind, TimeoutSeconds } from './remote-agents.ts';

const COMMON = {
  name: z.string().regex(/^[a-z][a-z0-9_]{0,63}$/),
  description: z.string().min(1),
  instructions: Instructions,
  /** A row of `models`, or the name of a model at `AGENT_MODEL_URL`; default: `AGENT_MODEL_NAME`. */
  model: Model,
  timeout_seconds: TimeoutSeconds,
};
/** The tools that it may choose; each call also needs the permission of the caller. */
const Tools = z.array(z.string());
const remoteRow = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.strictObject({ ...COMMON, ...shape, tools: Tools.default([]) });

const AgentRow = z.discriminatedUnion('kind', [
  z.strictObject({ ...COMMON, kind: z.enum(['model', 'built_in']).optional(), tools: Tools.min(1) }),
  remoteRow(REMOTE_KINDS.http),
  remoteRow(REMOTE_KINDS.agui),
  remoteRow(REMOTE_KINDS.responses),
  remoteRow(REMOTE_KINDS.a2a),
]);

/** Price units per 1,000 tokens. */
const Price = z.number().min(0).max(1_000_000);
const ModelPrice = z.strictObject({ input: Price, output: Price });
export type ModelPrice = Readonly<z.infer<typeof ModelPrice>>;
const FREE: ModelPrice = { input: 0, output: 0 };
/** The row of `model_prices` and of `models` for models without their own row. */
const ANY_MODEL = '*';

const AgentsFile = z
  .strictObject({
    default: z.string(),
    agents: z.array(AgentRow).min(1),
    model_prices: z.record(z.string(), ModelPrice).default({}),
    models: z.record(z.string().min(1).max(200), ModelRow).default({}),
  })
  .refine((file) => file.agents.some(({ name }) => name === file.default), {
    message: 'names no agent of the file',
    path: ['default'],
  });

export type AgentDescription = Readonly<z.infer<typeof AgentRow>>;
/** An agent that another server runs. */
export type RemoteAgent = Extract<AgentDescription, { readonly kind: RemoteKind }>;

export function isRemote(agent: AgentDescription): agent is RemoteAgent {
  return agent.kind !== undefined && agent.kind in REMOTE_KINDS;
}

/** The available agents, from `config/agents.json`. */
export class AgentCatalogue {
  readonly all: readonly AgentDescription[];
  readonly #default: string;
  readonly #prices: Readonly<Record<string, ModelPrice>>;
  readonly #models: Readonly<Record<string, ModelRow>>;

  constructor(
    agents: readonly AgentDescription[],
    defaultName: string,
    prices: Readonly<Record<string, ModelPrice>> = {},
    models: Readonly<Record<string, ModelRow>> = {},
  ) {
    this.all = agents;
    this.#default = defaultName;
    this.#prices = prices;
    this.#models = models;
  }

  /** Returns the agent with that name, or the default agent for no name; undefined when it does not exist. */
  get(name: string | undefined): AgentDescription | undefined {
    return this.all.find((agent) => agent.name === (name ?? this.#default));
  }

  /**
   * Returns the milliseconds from the acceptance of a run to its last event.
   * @param defaultMs for agents that name no timeout
   */
  timeoutMs(name: string, defaultMs: number): number {
    const seconds = this.get(name)?.timeout_seconds;
    return seconds === undefined ? defaultMs : seconds * 1_000;
  }

  /** Returns the largest timeout of all agents in milliseconds, at least `defaultMs`. */
  longestTimeoutMs(defaultMs: number): number {
    return Math.max(defaultMs, ...this.all.map(({ name }) => this.timeoutMs(name, defaultMs)));
  }

  /** Returns the token prices of a model. */
  price(model: string): ModelPrice {
    return this.#prices[model] ?? this.#prices[ANY_MODEL] ?? FREE;
  }

  /** Returns the row of a model; the row `*`, else an empty one, for a model without its own. */
  model(name: string): ModelRow {
    return this.#models[name] ?? this.#models[ANY_MODEL] ?? {};
  }

  /** Names of the models that have a row. */
  get models(): readonly string[] {
    return Object.keys(this.#models).filter((name) => name !== ANY_MODEL);
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
  const { agents, default: defaultName, model_prices, models } = parsed.data;
  return new AgentCatalogue(agents, defaultName, model_prices, models);
}
