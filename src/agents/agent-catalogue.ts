import { readFileSync } from 'node:fs';
import { z } from 'zod';

const AgentRow = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9_]{0,63}$/),
  description: z.string().min(1),
  /** The tools it may choose from; the caller's permissions decide about each call. */
  tools: z.array(z.string()).min(1),
});

const AgentsFile = z
  .strictObject({ default: z.string(), agents: z.array(AgentRow).min(1) })
  .refine((file) => file.agents.some(({ name }) => name === file.default), {
    message: 'names no agent of the file',
    path: ['default'],
  });

export type AgentDescription = Readonly<z.infer<typeof AgentRow>>;

/** The agents that can be asked, as `config/agents.json` has them. */
export class AgentCatalogue {
  readonly all: readonly AgentDescription[];
  readonly #default: string;

  constructor(agents: readonly AgentDescription[], defaultName: string) {
    this.all = agents;
    this.#default = defaultName;
  }

  /** The agent of that name, the default one for no name; undefined when there is none. */
  get(name: string | undefined): AgentDescription | undefined {
    return this.all.find((agent) => agent.name === (name ?? this.#default));
  }
}

const AGENTS_FILE = new URL('../../config/agents.json', import.meta.url);

/** @throws Error naming the file and the field of each mistake */
export function loadAgentCatalogue(file: URL = AGENTS_FILE): AgentCatalogue {
  const parsed = AgentsFile.safeParse(JSON.parse(readFileSync(file, 'utf8')));
  if (!parsed.success) throw new Error(`${file.pathname}:\n${z.prettifyError(parsed.error)}`);
  return new AgentCatalogue(parsed.data.agents, parsed.data.default);
}
