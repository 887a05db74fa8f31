import type { FastifyReply } from 'fastify';
import type { Logger } from '../src/lib/logger.ts';
import { ERRORS } from '../src/protocol/error-table.ts';
import { type ErrorCode, TollgateError } from '../src/protocol/errors.ts';

/** RFC 6749 section 5.2, RFC 8693 section 2.2.2 (`invalid_target`). The last two are for failures of the service. */
export type OAuthErrorCode =
  | 'invalid_request'
  | 'invalid_client'
  | 'invalid_grant'
  | 'unauthorized_client'
  | 'unsupported_grant_type'
  | 'invalid_scope'
  | 'invalid_target'
  | 'temporarily_unavailable'
  | 'server_error';

export interface OAuthErrorDetails {
  readonly status?: number;
  /** Code of Tollgate's error table. It distinguishes a blocked user from a revoked session, which OAuth does not. */
  readonly code?: ErrorCode;
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/**
 * Error response in the form of RFC 6749 section 5.2. The description is public and contains no part of the request.
 */
export class OAuthError extends Error {
  readonly error: OAuthErrorCode;
  readonly details: OAuthErrorDetails;

  constructor(error: OAuthErrorCode, description: string, details: OAuthErrorDetails = {}) {
    super(description, { cause: details.cause });
    this.name = 'OAuthError';
    this.error = error;
    this.details = details;
  }

  get status(): number {
    return this.details.status ?? (this.error === 'invalid_client' ? 401 : 400);
  }
}

/** Converts an error of an OAuth route to an OAuth error. */
export function toOAuthError(thrown: Error & { statusCode?: number }): OAuthError {
  if (thrown instanceof OAuthError) return thrown;
  if (thrown instanceof TollgateError) return fromTollgate(thrown);
  const status = thrown.statusCode ?? 500;
  if (status < 500) {
    return new OAuthError('invalid_request', 'The request cannot be parsed. Send a form or JSON body.', {
      status: status === 413 ? 413 : 400,
    });
  }
  return new OAuthError('server_error', ERRORS.INTERNAL_ERROR.text, { status: 500, cause: thrown });
}

function fromTollgate(error: TollgateError): OAuthError {
  const { code, message, retryAfterMs, row } = error;
  const details = { code, retryAfterMs, cause: error };
  if (row.http === 401 || row.http === 403) return new OAuthError('invalid_grant', message, details);
  // RFC 6749 defines no retryable error for the token endpoint; this code comes from its authorization endpoint.
  if (row.http === 429 || row.http === 503) {
    return new OAuthError('temporarily_unavailable', message, { ...details, status: row.http });
  }
  if (row.http < 500) return new OAuthError('invalid_request', message, details);
  return new OAuthError('server_error', ERRORS.INTERNAL_ERROR.text, { status: 500, cause: error });
}

/** Error handler of the OAuth routes. */
export function sendOAuthError(thrown: Error, reply: FastifyReply, logger: Logger): FastifyReply {
  const error = toOAuthError(thrown);
  const { code, retryAfterMs } = error.details;
  if (error.status >= 500) logger.error({ err: thrown }, 'request failed');
  if (error.error === 'invalid_client') reply.header('www-authenticate', 'Basic realm="tollgate"');
  if (retryAfterMs !== undefined) reply.header('retry-after', Math.ceil(retryAfterMs / 1000));
  const body = { error: error.error, error_description: error.message, ...(code === undefined ? {} : { code }) };
  return reply.status(error.status).send(body);
}
