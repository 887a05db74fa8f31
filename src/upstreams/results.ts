import { isObject } from '../lib/json.ts';
import { type Json, type RowRules, type SpecSchemas, withoutNulls } from './rows.ts';

const CONTENT_SCHEMAS = {
  text: 'TextContent',
  image: 'ImageContent',
  audio: 'AudioContent',
  resource_link: 'ResourceLink',
  resource: 'EmbeddedResource',
} as const;
/** Maximum length of content of an unknown form, which is passed on as text. */
const MAX_UNKNOWN_CHARS = 16_384;

/**
 * Brings the result of a tool into the form of MCP where its meaning is clear: a missing or single `content`, members
 * that are null, annotations and content types that the SDK does not accept. Results with `resultType` other than
 * `complete` and tasks stay as they are.
 */
export function readToolResult({ schemas, isLegacy }: RowRules, result: Json): Json {
  const isFinal = result.resultType === undefined || result.resultType === null || result.resultType === 'complete';
  if (!isFinal || 'task' in result) return result;
  const read = withoutNulls(result);
  const { content, structuredContent, isError } = read;
  if (content !== undefined || structuredContent !== undefined) {
    const blocks = Array.isArray(content) ? content : content === undefined ? [] : [content];
    read.content = blocks.map((block) => readContent(schemas, block));
  }
  // Any JSON value is allowed since 2026-07-28 only. The SDK's server wraps other values for older clients in the same
  // way.
  const isWrapped = isLegacy && structuredContent !== undefined && !isObject(structuredContent);
  if (isWrapped) read.structuredContent = { result: structuredContent };
  if (isError !== undefined) read.isError = isError === true || isError === 'true';
  return read;
}

function readContent(schemas: SpecSchemas, block: unknown): Json {
  if (typeof block === 'string') return { type: 'text', text: block };
  const read = isObject(block) ? withoutNulls(block) : undefined;
  const schema = read && schemaOf(schemas, read.type);
  if (!read || !schema) return asText(block);
  const { issues = [] } = schema['~standard'].validate(read);
  if (issues.length === 0) return read;
  // Hints for display; the content is complete without them.
  const { annotations: _annotations, _meta, icons: _icons, ...bare } = read;
  return schema['~standard'].validate(bare).issues ? asText(block) : bare;
}

function schemaOf(schemas: SpecSchemas, type: unknown) {
  if (typeof type !== 'string' || !Object.hasOwn(CONTENT_SCHEMAS, type)) return undefined;
  return schemas[CONTENT_SCHEMAS[type as keyof typeof CONTENT_SCHEMAS]];
}

function asText(block: unknown): Json {
  return { type: 'text', text: JSON.stringify(block).slice(0, MAX_UNKNOWN_CHARS).toWellFormed() };
}
