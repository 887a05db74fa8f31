import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { type ErrorCode, TollgateError, toTollgateError } from '../protocol/errors.ts';
import { parseFields } from '../protocol/parse-fields.ts';

declare module 'fastify' {
  interface FastifySchema {
    /** Codes of the errors that the route sends as `{ error }`; `/openapi.json` lists them per status. */
    readonly 'x-errors'?: readonly ErrorCode[];
    /** The same for a route whose errors are JSON-RPC. */
    readonly 'x-rpc-errors'?: readonly ErrorCode[];
  }
}

/** The routes of `app`, with request and response types inferred from their zod schemas. */
export function typedRoutes(app: FastifyInstance) {
  return app.withTypeProvider<ZodTypeProvider>();
}

/**
 * Lets the routes of `app` have zod schemas. Requests are validated; an error names the first wrong field in
 * `error.field` and in its text. Responses are serialized without validation: their types and the tests already hold
 * them to the schema, and a second check would cost more than the serialization.
 */
export function acceptZodSchemas(app: FastifyInstance): void {
  app.setValidatorCompiler(({ schema }) => validatorOf(schema));
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
}

/** Fastify passes an absent body as null; schemas expect undefined. */
function validatorOf(schema: unknown) {
  if (!(schema instanceof z.ZodType)) throw new Error('the schema of a typed route must be a zod schema');
  return (data: unknown) => {
    try {
      return { value: parseFields(schema, data ?? undefined) };
    } catch (error) {
      return { error: toTollgateError(error) };
    }
  };
}

/** Security requirement: the token of a service with this scope. */
export const serviceToken = (scope: string) => [{ service: [scope] }];
/** Security requirement: the access token of a user. */
export const USER_TOKEN = [{ user: [] }];
/** Security requirement: none. */
export const PUBLIC = [];

const UNVERIFIED = ['NO_TOKEN', 'INVALID_FORMAT', 'VALIDATION_FAILED', 'TOKEN_REVOKED', 'TOKEN_EXPIRED'] as const;
const AUTH_SERVICE_FAILED = [
  'AUTH_SERVICE_UNAVAILABLE',
  'AUTH_SERVICE_TIMEOUT',
  'AUTH_CIRCUIT_BREAKER_OPEN',
  'INVALID_RESPONSE_FORMAT',
] as const;

/** Errors of routes without authentication and parameters: a request without one valid `Host`. */
export const PUBLIC_ERRORS: readonly ErrorCode[] = ['FORMAT_ERROR', 'INTERNAL_ERROR'];
/** Authentication of a user, by a bearer token. */
export const USER_ERRORS: readonly ErrorCode[] = [
  ...UNVERIFIED,
  'AUTH_RATE_LIMITED',
  ...AUTH_SERVICE_FAILED,
  'OVERLOADED',
  'INTERNAL_ERROR',
];
/** Authentication of a service or an operator, the scope, the rate of an operator, and an unavailable Redis. */
export const SERVICE_ERRORS: readonly ErrorCode[] = [
  ...USER_ERRORS,
  'USER_MISMATCH',
  'USER_BLOCKED',
  'PERMISSION_DENIED',
  'RATE_LIMITED',
];
/** A JSON body that is malformed, too deep or too large, or does not fit its schema. */
export const BODY_ERRORS: readonly ErrorCode[] = ['FORMAT_ERROR', 'JSON_ERROR', 'MESSAGE_TOO_LARGE'];

/** Body of every HTTP error, apart from those of `/mcp`. */
export const ErrorBody = z
  .object({
    error: z.looseObject({
      code: z.string().describe('One of the codes of `GET /ws/config`. Branch on it, not on the message.'),
      message: z.string().describe('What was wrong, for people. It can change between versions.'),
      retryable: z.boolean().describe('Whether the same request can succeed later.'),
      retry_after_ms: z.int().optional().describe('Milliseconds to wait before the next attempt.'),
      field: z.string().optional().describe('Path of the first wrong field.'),
    }),
  })
  .meta({ id: 'Error' });

/** Body of an error of `/mcp`: a JSON-RPC 2.0 error. */
export const RpcErrorBody = z
  .object({
    jsonrpc: z.literal('2.0'),
    id: z.union([z.string(), z.number(), z.null()]).describe('Of the request; null if the request has none.'),
    error: z.object({
      code: z.int().describe('JSON-RPC code, as listed by `GET /ws/config`.'),
      message: z.string(),
      data: z.looseObject({ code: z.string(), retryable: z.boolean(), retry_after_ms: z.int().optional() }),
    }),
  })
  .meta({ id: 'JsonRpcError' });

/** An error of the table with example values, for the documentation. */
export function exampleError(code: ErrorCode): TollgateError {
  const retryAfterMs = RETRY_AFTER.has(code) ? 1_000 : undefined;
  return new TollgateError(code, retryAfterMs === undefined ? {} : { retryAfterMs });
}

const RETRY_AFTER: ReadonlySet<ErrorCode> = new Set([
  'AUTH_RATE_LIMITED',
  'RATE_LIMITED',
  'AUTH_CIRCUIT_BREAKER_OPEN',
  'OVERLOADED',
  'SERVER_DRAINING',
]);
