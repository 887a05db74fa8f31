import { z } from 'zod';
import { TollgateError } from './errors.ts';
import { type Fields, isFields } from './messages.ts';

/** A tool of the front end that started a run: the agent calls it, the front end executes it. */
export interface ClientTool {
  /** A name that every model endpoint accepts. */
  readonly name: string;
  readonly description: string;
  /** JSON Schema of the arguments, an object. */
  readonly parameters: Fields;
}

/** Tools per run. */
const MAX_TOOLS = 64;
/** Characters of all tools as JSON; they are stored with the run. */
const MAX_CHARACTERS = 65_536;

const Tool = z.looseObject({
  name: z.string().regex(/^[\w-]{1,64}$/, 'must have 1 to 64 letters, digits, "_" or "-"'),
  description: z.string().nullish(),
  parameters: z.record(z.string(), z.unknown()).nullish(),
});

/**
 * Reads the tools of a front end.
 * @param schemaField the field in which its protocol has the JSON Schema of the arguments
 * @throws TollgateError FORMAT_ERROR that names the field, for an invalid tool, a repeated name, or more than 64 tools
 *   or 65,536 characters
 */
export function clientToolsOf(
  tools: readonly unknown[] = [],
  schemaField: 'parameters' | 'inputSchema' = 'parameters',
): readonly ClientTool[] {
  if (tools.length > MAX_TOOLS) throw toolError('tools', `must have at most ${MAX_TOOLS} tools`);
  const names = new Set<string>();
  const read = tools.map((value, at): ClientTool => {
    const named = isFields(value) ? { ...value, parameters: value[schemaField] } : value;
    const { data, error } = Tool.safeParse(named);
    if (!data) {
      const [issue] = error.issues;
      const path = (issue?.path ?? []).map((key) => (key === 'parameters' ? schemaField : key));
      throw toolError(['tools', at, ...path].join('.'), issue?.message ?? 'is invalid');
    }
    const { name, description, parameters } = data;
    if (names.has(name)) throw toolError(`tools.${at}.name`, 'another tool has this name');
    names.add(name);
    return { name, description: description?.toWellFormed() ?? '', parameters: parameters ?? { type: 'object' } };
  });
  if (JSON.stringify(read).length > MAX_CHARACTERS) {
    throw toolError('tools', `must have at most ${MAX_CHARACTERS} characters of JSON`);
  }
  return read;
}

function toolError(field: string, problem: string): TollgateError {
  return new TollgateError('FORMAT_ERROR', { text: `"${field}": ${problem}`, fields: { field } });
}
