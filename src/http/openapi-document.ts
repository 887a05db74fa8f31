import { STATUS_CODES } from 'node:http';
import { rpcErrorBody } from '../mcp/mcp-errors.ts';
import { ERRORS } from '../protocol/error-table.ts';
import { type ErrorCode, publicError } from '../protocol/errors.ts';
import { exampleError } from './route-docs.ts';

/** What @fastify/swagger writes as the description of a response that has none. */
const NO_DESCRIPTION = 'Default Response';
const JSON_TYPE = 'application/json';

type Json = Record<string, unknown>;
interface Media extends Json {
  readonly schema: Json;
}
interface Response extends Json {
  description: string;
}
interface RequestBody extends Json {
  required: boolean;
  content: Record<string, Media>;
}
interface Operation extends Json {
  requestBody?: RequestBody;
  responses: Record<string, Response>;
  'x-errors'?: readonly ErrorCode[];
  'x-rpc-errors'?: readonly ErrorCode[];
}
interface OpenApiDocument extends Json {
  paths: Record<string, Record<string, Operation>>;
  components: Json & { schemas: Record<string, Json> };
}

/** How a route sends its errors: the component with the schema, and an example body per code. */
interface ErrorForm {
  readonly schema: string;
  readonly exampleName: (code: ErrorCode) => string;
  readonly example: (code: ErrorCode) => object;
}

const PLAIN: ErrorForm = {
  schema: 'Error',
  exampleName: (code) => code,
  example: (code) => ({ error: publicError(exampleError(code)) }),
};
const JSON_RPC: ErrorForm = {
  schema: 'JsonRpcError',
  exampleName: (code) => `${code}.jsonrpc`,
  example: (code) => rpcErrorBody(1, exampleError(code)),
};

/**
 * Completes the document of @fastify/swagger: error responses from `x-errors`, shared examples and headers, response
 * descriptions, optional request bodies. Paths and components are sorted, so that the document of one version of the
 * code is always the same.
 */
export function finishDocument<Document extends object>(generated: Document): Document {
  const document = generated as unknown as OpenApiDocument;
  const examples: Record<string, Json> = {};
  for (const operation of Object.values(document.paths).flatMap((path) => Object.values(path))) {
    if (operation.requestBody) allowAbsence(operation.requestBody);
    openToNewFields(operation.responses);
    addErrors(operation, PLAIN, examples);
    addErrors(operation, JSON_RPC, examples);
    for (const [status, response] of Object.entries(operation.responses)) {
      if (response.description === NO_DESCRIPTION) response.description = STATUS_CODES[status] ?? status;
    }
  }
  for (const [name, schema] of Object.entries(document.components.schemas)) {
    if (!name.endsWith('Input')) openToNewFields(schema);
  }
  const paths = sorted(document.paths);
  const { schemas, ...components } = document.components;
  const finished = {
    ...document,
    servers: [{ url: '/', description: 'This gateway.' }],
    paths,
    components: { ...components, examples: sorted(examples), headers: HEADERS, schemas: referenced(paths, schemas) },
  };
  simplify(finished);
  return finished as unknown as Document;
}

const HEADERS = {
  RetryAfter: {
    description: 'Seconds to wait before the next attempt; absent if the gateway cannot tell.',
    schema: { type: 'integer', minimum: 0 },
    example: 1,
  },
  WwwAuthenticate: {
    description: 'Authentication scheme (RFC 6750).',
    schema: { type: 'string' },
    example: 'Bearer realm="tollgate"',
  },
};

/** Adds a response per HTTP status, with an example per error code. */
function addErrors(operation: Operation, form: ErrorForm, examples: Record<string, Json>): void {
  const key = form === PLAIN ? 'x-errors' : 'x-rpc-errors';
  const codes = [...new Set(operation[key])];
  delete operation[key];
  for (const [status, sameStatus] of Object.entries(Object.groupBy(codes, (code) => String(ERRORS[code].http)))) {
    const named = (sameStatus ?? []).map((code) => [code, form.exampleName(code)] as const);
    for (const [code, name] of named) examples[name] = { summary: ERRORS[code].text, value: form.example(code) };
    operation.responses[status] = {
      description: named.map(([code]) => `\`${code}\``).join(', '),
      ...headersOf(status),
      content: {
        [JSON_TYPE]: {
          schema: { $ref: `#/components/schemas/${form.schema}` },
          examples: Object.fromEntries(named.map(([code, name]) => [code, { $ref: `#/components/examples/${name}` }])),
        },
      },
    };
  }
}

function headersOf(status: string): Json {
  if (status === '401') return { headers: { 'WWW-Authenticate': { $ref: '#/components/headers/WwwAuthenticate' } } };
  if (status !== '429' && status !== '503') return {};
  return { headers: { 'Retry-After': { $ref: '#/components/headers/RetryAfter' } } };
}

/** A body that can be absent is nullable in zod; in OpenAPI the request body is optional instead. */
function allowAbsence(body: RequestBody): void {
  for (const media of Object.values(body.content)) {
    const { anyOf } = media.schema as { readonly anyOf?: readonly Json[] };
    const present = anyOf?.filter(({ type }) => type !== 'null');
    const [only] = present ?? [];
    if (anyOf === undefined || present?.length !== 1 || present.length === anyOf.length || !only) continue;
    Object.assign(media, { schema: only });
    body.required = false;
  }
}

/** Responses can gain fields without a new version: generated clients must accept unknown ones. */
function openToNewFields(node: unknown): void {
  visit(node, (object) => {
    if (object.additionalProperties === false) delete object.additionalProperties;
  });
}

/** Removes what zod adds to a type that already implies it: the bounds of safe integers, the pattern of a date. */
function simplify(node: unknown): void {
  visit(node, (object) => {
    if (object.minimum === Number.MIN_SAFE_INTEGER) delete object.minimum;
    if (object.maximum === Number.MAX_SAFE_INTEGER) delete object.maximum;
    if (object.format === 'date-time') delete object.pattern;
  });
}

function visit(node: unknown, change: (object: Json) => void): void {
  if (typeof node !== 'object' || node === null) return;
  if (!Array.isArray(node)) change(node as Json);
  for (const child of Object.values(node)) visit(child, change);
}

/** The components that the paths use, directly or through each other. */
function referenced(paths: unknown, schemas: Readonly<Record<string, Json>>): Record<string, Json> {
  const found = new Map<string, Json>();
  const collect = (node: unknown) =>
    visit(node, ({ $ref }) => {
      const name = typeof $ref === 'string' ? $ref.replace('#/components/schemas/', '') : '';
      const schema = schemas[name];
      if (schema === undefined || found.has(name)) return;
      found.set(name, schema);
      collect(schema);
    });
  collect(paths);
  return sorted(Object.fromEntries(found));
}

function sorted<T>(entries: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(entries).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
