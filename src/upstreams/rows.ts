import type { specTypeSchemas } from '@modelcontextprotocol/client';
import { isObject } from '../lib/json.ts';

/** The SDK's schemas of MCP types; passed in, because the SDK is only loaded if tool servers are configured. */
export type SpecSchemas = typeof specTypeSchemas;
export type Json = Readonly<Record<string, unknown>>;

export const LIST_METHODS = ['tools/list', 'resources/list', 'resources/templates/list', 'prompts/list'] as const;
export type ListMethod = (typeof LIST_METHODS)[number];

/** An entry of a list, or a whole list, that is not offered, with the reason. */
export interface OmittedRow {
  readonly list: ListMethod;
  /** Name or URI of the entry; empty for one without a name, and for the list itself. */
  readonly name: string;
  readonly reason: string;
}

interface RowKind {
  /** Member of the result that contains the rows. */
  readonly member: string;
  readonly key: string;
  readonly schema: 'Tool' | 'Resource' | 'ResourceTemplate' | 'Prompt';
  /** Members without which a row cannot be used. Every other member that is not valid is left out of its row. */
  readonly needed: readonly string[];
}

const KINDS: Readonly<Record<ListMethod, RowKind>> = {
  'tools/list': { member: 'tools', key: 'name', schema: 'Tool', needed: ['name', 'inputSchema', 'outputSchema'] },
  'resources/list': { member: 'resources', key: 'uri', schema: 'Resource', needed: ['uri', 'name'] },
  'resources/templates/list': {
    member: 'resourceTemplates',
    key: 'uriTemplate',
    schema: 'ResourceTemplate',
    needed: ['uriTemplate', 'name'],
  },
  'prompts/list': { member: 'prompts', key: 'name', schema: 'Prompt', needed: ['name', 'arguments'] },
};
/** Maximum length of a name that is reported. */
const MAX_NAME = 200;

export function isListMethod(method: string): method is ListMethod {
  return (LIST_METHODS as readonly string[]).includes(method);
}

/** One page of a list, with the rows that can be used. */
export interface ReadPage {
  readonly result: Json;
  readonly omitted: readonly OmittedRow[];
}

export interface RowRules {
  readonly schemas: SpecSchemas;
  /** Whether the version is 2025-11-25 or older, in which an output schema describes an object. */
  readonly isLegacy: boolean;
}

/** Reads a page row by row. A row that cannot be used is left out, so that it affects no other row. */
export function readPage(rules: RowRules, list: ListMethod, result: Json): ReadPage {
  const { member } = KINDS[list];
  const listed = result[member];
  const omitted: OmittedRow[] = [];
  if (!Array.isArray(listed)) omitted.push({ list, name: '', reason: `${member} is not an array` });
  const rows = (Array.isArray(listed) ? listed : []).flatMap((row: unknown) => {
    const read = readRow(rules, list, row);
    if (!('reason' in read)) return [read.row];
    omitted.push({ list, name: read.name.slice(0, MAX_NAME).toWellFormed(), reason: read.reason });
    return [];
  });
  const { nextCursor, _meta, ...rest } = result;
  const page = { ...rest, ...(isObject(_meta) ? { _meta } : {}), [member]: rows };
  // An empty cursor and null end the list, as no cursor does.
  const more = typeof nextCursor === 'string' && nextCursor !== '';
  return { result: more ? { ...page, nextCursor } : page, omitted };
}

type ReadRow = { readonly row: Json } | { readonly name: string; readonly reason: string };

function readRow({ schemas, isLegacy }: RowRules, list: ListMethod, listed: unknown): ReadRow {
  const { key, schema, needed } = KINDS[list];
  if (!isObject(listed)) return { name: '', reason: 'is not an object' };
  const name = typeof listed[key] === 'string' ? listed[key] : '';
  if (name === '') return { name, reason: `${key} is not a non-empty string` };
  const row = withoutNulls({ name, ...listed }, needed.includes('inputSchema') ? ['inputSchema'] : []);
  if (row.name === undefined) row.name = name;
  if (list === 'tools/list') normalizeSchemas(row);
  if (list === 'prompts/list' && Array.isArray(row.arguments)) row.arguments = row.arguments.map(argumentOf);
  const problem = dropInvalid(schemas[schema], row, needed) ?? (isLegacy ? outputProblem(schemas, row) : undefined);
  return problem === undefined ? { row } : { name, reason: problem };
}

function outputProblem(schemas: SpecSchemas, { outputSchema }: Json): string | undefined {
  if (outputSchema === undefined) return undefined;
  return dropInvalid(schemas.Tool, { name: 'any', inputSchema: outputSchema }, ['inputSchema'])?.replace('in', 'out');
}

/**
 * MCP requires `type: "object"` at the top of a tool's schema. A schema without a type, such as `{}` or one with only
 * `anyOf`, describes the same arguments, because these are always an object.
 */
function normalizeSchemas(row: Record<string, unknown>): void {
  for (const member of ['inputSchema', 'outputSchema']) {
    const schema = row[member];
    if (!isObject(schema)) continue;
    const { type } = schema;
    const isImplied = type === undefined || type === null || (Array.isArray(type) && type.includes('object'));
    const { additionalProperties, ...open } = withoutNulls(schema);
    const kept = additionalProperties === undefined || refusesItsAlternatives(schema) ? {} : { additionalProperties };
    row[member] = { ...open, ...kept, ...(isImplied ? { type: 'object' } : {}) };
  }
}

/**
 * Whether a schema admits no member of its own alternatives: `additionalProperties: false` applies to `properties` beside it
 * only (JSON Schema 2020-12 Core, section 10.3.2.3). FastMCP (npm) 4.20 writes it beside the `oneOf` of a union.
 */
function refusesItsAlternatives(schema: Json): boolean {
  if (schema.additionalProperties !== false || hasMembers(schema.properties) || hasMembers(schema.patternProperties)) {
    return false;
  }
  const alternatives = ['oneOf', 'anyOf', 'allOf'].flatMap((keyword): unknown => schema[keyword] ?? []);
  return alternatives.some((alternative) => isObject(alternative) && hasMembers(alternative.properties));
}

function hasMembers(value: unknown): boolean {
  return isObject(value) && Object.keys(value).length > 0;
}

function argumentOf(argument: unknown): unknown {
  return isObject(argument) ? withoutNulls(argument) : argument;
}

/** Removes optional members that are not valid from a row. Returns the first problem of a needed member. */
function dropInvalid(
  schema: SpecSchemas[RowKind['schema']],
  row: Record<string, unknown>,
  needed: readonly string[],
): string | undefined {
  const { issues = [] } = schema['~standard'].validate(row);
  for (const { path = [], message } of issues) {
    const names = path.map((part) => String(typeof part === 'object' ? part.key : part));
    const [member] = names;
    if (member === undefined || needed.includes(member)) return `${names.join('.')}: ${message}`;
    delete row[member];
  }
  return undefined;
}

/** Returns a copy without the members that are null: libraries of many languages write null for a missing value. */
export function withoutNulls(value: Json, kept: readonly string[] = []): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([name, member]) => member !== null || kept.includes(name)));
}
