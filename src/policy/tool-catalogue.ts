import { readFileSync } from 'node:fs';
import { Ajv, type ValidateFunction } from 'ajv';
import { z } from 'zod';

const ToolRow = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9_]{0,63}$/),
  description: z.string().min(1),
  permission: z.string().min(1),
  executor: z.literal('builtin'),
  /** Price units of one execution. */
  units: z.number().int().min(0),
  /** JSON Schema of the arguments. */
  arguments: z.record(z.string(), z.unknown()),
});

const ToolsFile = z.strictObject({ tools: z.array(ToolRow).min(1) }).superRefine((file, context) => {
  const seen = new Set<string>();
  for (const [index, { name }] of file.tools.entries()) {
    if (seen.has(name)) {
      context.addIssue({ code: 'custom', message: `${name} stands twice`, path: ['tools', index, 'name'] });
    }
    seen.add(name);
  }
});

export type Tool = z.infer<typeof ToolRow> & {
  /** What is wrong with these arguments, as one sentence; undefined when nothing is. */
  readonly argumentsProblem: (args: unknown) => string | undefined;
};

/** The tools that can be called, as `config/tools.json` has them. A tool that is not in it does not exist. */
export class ToolCatalogue {
  readonly all: readonly Tool[];
  readonly #byName: ReadonlyMap<string, Tool>;

  constructor(tools: readonly Tool[]) {
    this.all = tools;
    this.#byName = new Map(tools.map((tool) => [tool.name, tool]));
  }

  get(name: string): Tool | undefined {
    return this.#byName.get(name);
  }
}

const TOOLS_FILE = new URL('../../config/tools.json', import.meta.url);

/** @throws Error naming the file and the field of each mistake, a schema that does not compile included */
export function loadToolCatalogue(file: URL = TOOLS_FILE): ToolCatalogue {
  const parsed = ToolsFile.safeParse(JSON.parse(readFileSync(file, 'utf8')));
  if (!parsed.success) throw new Error(`${file.pathname}:\n${z.prettifyError(parsed.error)}`);
  const ajv = new Ajv({ allErrors: false, strict: true });
  return new ToolCatalogue(
    parsed.data.tools.map((tool) => {
      const validate = ajv.compile(tool.arguments);
      return { ...tool, argumentsProblem: (args: unknown) => firstProblem(ajv, validate, args) };
    }),
  );
}

function firstProblem(ajv: Ajv, validate: ValidateFunction, args: unknown): string | undefined {
  return validate(args) ? undefined : ajv.errorsText(validate.errors, { dataVar: 'arguments' });
}
