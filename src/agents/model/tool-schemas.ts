import type { Tool } from '../../catalogue/tool-catalogue.ts';
import type { Fields } from '../../protocol/messages.ts';
import { asList, asObject } from './json.ts';
import type { ToolDefinition } from './messages.ts';

export interface SchemaRules {
  readonly tool_description_characters: number;
  readonly dropped_schema_keywords: readonly string[];
}

/** How a definition was changed for an endpoint. */
export type SchemaRule = 'properties' | 'description_length' | 'top_level_combination' | 'keyword' | 'too_deep';

export interface OfferedTool {
  readonly definition: ToolDefinition | undefined;
  /** What was changed or left out, for the operator. */
  readonly changes: readonly { readonly rule: SchemaRule; readonly detail: string }[];
}

/** Keywords that describe the schema itself. Endpoints refuse or ignore them. */
const META = ['$schema', '$id', '$comment'];
const COMBINATIONS = ['anyOf', 'oneOf', 'allOf'] as const;
/** Keywords whose values are maps from names to schemas, so that their keys are no keywords. */
const MAPS = new Set(['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas']);
/** Keywords whose values are data. */
const DATA = new Set(['const', 'default', 'enum', 'examples', 'required']);
const MAX_DEPTH = 32;

/**
 * Returns the definition of a tool in the form that the endpoint accepts. It may allow more than the tool's own schema;
 * the gateway checks the arguments of each call against that one, and returns the problem to the model.
 */
export function offeredTool(
  { name, description, arguments: schema }: Pick<Tool, 'name' | 'description' | 'arguments'>,
  rules: SchemaRules,
): OfferedTool {
  const changes: { rule: SchemaRule; detail: string }[] = [];
  const change = (rule: SchemaRule, detail: string) => changes.push({ rule, detail });
  if (isTooDeep(schema, 0)) {
    change('too_deep', `more than ${MAX_DEPTH} levels`);
    return { definition: undefined, changes };
  }
  const dropped = new Set<string>();
  const cleaned = withoutKeywords(schema, new Set(rules.dropped_schema_keywords), dropped);
  for (const keyword of dropped) change('keyword', keyword);
  const parameters = withProperties(withoutCombinations(cleaned, change), change);
  const longest = rules.tool_description_characters;
  const isLong = description.length > longest;
  if (isLong) change('description_length', `${description.length} characters, ${longest} are sent`);
  const shown = isLong ? `${description.slice(0, longest - 1).toWellFormed()}…` : description;
  return { definition: { type: 'function', function: { name, description: shown, parameters } }, changes };
}

/** Endpoints require `type: "object"` and `properties`. */
function withProperties(schema: Fields, change: (rule: SchemaRule, detail: string) => void): Fields {
  if (asObject(schema.properties) && schema.type === 'object') return schema;
  if (!asObject(schema.properties)) change('properties', 'added');
  return { ...schema, type: 'object', properties: asObject(schema.properties) ?? {} };
}

/**
 * Merges the alternatives at the top of a schema into one object, because endpoints accept none there. A property is
 * required if every alternative requires it (of `allOf`, if one does).
 */
function withoutCombinations(schema: Fields, change: (rule: SchemaRule, detail: string) => void): Fields {
  return COMBINATIONS.reduce<Fields>((whole, keyword) => {
    if (whole[keyword] === undefined) return whole;
    change('top_level_combination', keyword);
    const { [keyword]: given, ...rest } = whole;
    const alternatives = asList(given)
      .map(asObject)
      .filter((part) => part !== undefined);
    const properties = Object.assign({}, ...alternatives.map((part) => asObject(part.properties)).reverse()) as Fields;
    const lists = alternatives.map(({ required }) => new Set<unknown>(Array.isArray(required) ? required : []));
    const names = [...new Set(lists.flatMap((list) => [...list]))];
    const needed = names.filter((name) =>
      keyword === 'allOf' ? lists.some((list) => list.has(name)) : lists.every((list) => list.has(name)),
    );
    const required = [...new Set([...(Array.isArray(rest.required) ? rest.required : []), ...needed])];
    return {
      ...rest,
      properties: { ...properties, ...asObject(rest.properties) },
      ...(required.length > 0 ? { required } : {}),
    };
  }, schema);
}

/** Returns a copy without some keywords, at every level. Names of properties are no keywords. */
function withoutKeywords(schema: Fields, keywords: ReadonlySet<string>, dropped: Set<string>): Fields {
  const kept = Object.entries(schema).flatMap(([key, value]): [string, unknown][] => {
    if (META.includes(key)) return [];
    if (keywords.has(key)) {
      dropped.add(key);
      // A constant is a list of one.
      return key === 'const' ? [['enum', [value]]] : [];
    }
    if (DATA.has(key)) return [[key, value]];
    if (!MAPS.has(key)) return [[key, cleaned(value, keywords, dropped)]];
    const entries = Object.entries(asObject(value) ?? {});
    return [[key, Object.fromEntries(entries.map(([name, inner]) => [name, cleaned(inner, keywords, dropped)]))]];
  });
  return Object.fromEntries(kept);
}

function cleaned(value: unknown, keywords: ReadonlySet<string>, dropped: Set<string>): unknown {
  if (Array.isArray(value)) return value.map((item) => cleaned(item, keywords, dropped));
  const schema = asObject(value);
  return schema ? withoutKeywords(schema, keywords, dropped) : value;
}

function isTooDeep(value: unknown, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return depth > MAX_DEPTH || Object.values(value).some((inner) => isTooDeep(inner, depth + 1));
}
