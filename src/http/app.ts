import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply, LogController } from 'fastify';
import { hasValidHost } from '../lib/host.ts';
import type { Logger } from '../lib/logger.ts';
import { publicError, TollgateError } from '../protocol/errors.ts';
import { errorBody, errorHeaders } from '../protocol/http-errors.ts';

const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/** How late the two above may be: Node looks every 30 seconds by itself, at unfinished requests only. */
const TIMEOUT_CHECK_MS = 1_000;
const SERVER_OPTIONS = {
  headersTimeout: HEADERS_TIMEOUT_MS,
  requestTimeout: REQUEST_TIMEOUT_MS,
  connectionsCheckingInterval: TIMEOUT_CHECK_MS,
  // Node would answer without a body, and does not look at what a Host holds: both are checked below.
  requireHostHeader: false,
  // Other upgrades are offers that a server may pass over (RFC 9110 section 7.8): curl and Java offer h2c.
  shouldUpgradeCallback: (request: IncomingMessage) => request.headers.upgrade?.toLowerCase() === 'websocket',
};
const KEEP_ALIVE_MS = 65_000;
const BODY_LIMIT_BYTES = 64 * 1024;
/** A user id of 128 characters, each of them percent-encoded; the router's own bound is 100, and makes 404 of the rest. */
const MAX_PARAMETER_LENGTH = 3 * 128;

export interface AppOptions {
  readonly logger: Logger;
  /** How many proxies in front are trusted to name the client in `X-Forwarded-For`; 0 trusts nobody. */
  readonly trustedProxyHops: number;
  /** Answers a request itself and returns true, before Fastify sees it: for servers that read the body their own way. */
  readonly intercept?: (request: IncomingMessage, response: ServerResponse) => boolean;
  /** Whether a path is served by upgrades alone: a plain request of it is answered with 426. */
  readonly isUpgradePath?: (path: string) => boolean;
}

/**
 * An HTTP server with the bounds and the error form that every Tollgate process shares: errors are
 * `{ error: { code, message, retryable, … } }`, whoever raised them.
 */
export function createApp({ logger, trustedProxyHops, intercept, isUpgradePath }: AppOptions): FastifyInstance {
  const refuse = (thrown: HttpError, reply: FastifyReply) => {
    const error = httpError(thrown);
    if (error.code === 'INTERNAL_ERROR') logger.error({ err: thrown }, 'request failed');
    return reply
      .status(error.row.http)
      .headers(errorHeaders(error))
      .send({ error: publicError(error) });
  };
  const app = Fastify({
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    trustProxy: (_address, hop) => hop < trustedProxyHops,
    bodyLimit: BODY_LIMIT_BYTES,
    routerOptions: { maxParamLength: MAX_PARAMETER_LENGTH },
    forceCloseConnections: true,
    // A body that names `__proto__` is refused by the parser, not handed on.
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    clientErrorHandler: refuseUnreadable,
    // A path that cannot be decoded is refused by the router, which asks no other handler.
    frameworkErrors: (thrown, _request, reply) => void refuse(thrown, reply),
    serverFactory: (handler) => {
      return createServer(SERVER_OPTIONS, (request, response) => {
        if (!hasValidHost(request)) refuseHost(response);
        else if (!intercept?.(request, response)) handler(request, response);
      });
    },
  });
  app.server.keepAliveTimeout = KEEP_ALIVE_MS;
  takeEmptyJson(app);

  app.setErrorHandler((thrown: HttpError, _request, reply) => refuse(thrown, reply));
  app.setNotFoundHandler(({ method, url }) => {
    const [path = ''] = url.split('?');
    const isUpgrade = (method === 'GET' || method === 'HEAD') && isUpgradePath?.(path);
    throw new TollgateError(isUpgrade ? 'UPGRADE_REQUIRED' : 'ENDPOINT_NOT_FOUND');
  });
  return app;
}

/** Many clients announce JSON for a request without a body too; an empty one counts as none. */
function takeEmptyJson(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined);
    else parseJson(request, String(body), done);
  });
}

/** RFC 9112 section 3.2. */
function refuseHost(response: ServerResponse): void {
  const body = errorBody(new TollgateError('FORMAT_ERROR', { text: 'The request must name one valid Host.' }));
  const headers = { 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(body) };
  response.writeHead(400, { ...headers, connection: 'close' }).end(body);
}

/** What is no HTTP, or too large or too slow for it, is answered in the form of every other error. */
function refuseUnreadable(error: Error & { code?: string }, socket: Socket): void {
  // A proxy or browser that connects beforehand has asked nothing: an answer could be taken for that to its first request.
  if (!socket.writable || socket.bytesRead === 0) return void socket.destroy();
  const overflow = error.code === 'HPE_HEADER_OVERFLOW';
  const late = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  const status = overflow ? '431 Request Header Fields Too Large' : late ? '408 Request Timeout' : '400 Bad Request';
  const row = overflow ? 'MESSAGE_TOO_LARGE' : late ? 'CONNECTION_TIMEOUT' : 'FORMAT_ERROR';
  const body = errorBody(new TollgateError(row, { cause: error }));
  const head = ['content-type: application/json; charset=utf-8', `content-length: ${Buffer.byteLength(body)}`];
  socket.end(`HTTP/1.1 ${status}\r\n${head.join('\r\n')}\r\nconnection: close\r\n\r\n${body}`);
}
/** What Fastify throws. */
type HttpError = Error & { readonly statusCode?: number; readonly validation?: unknown };

/** Fastify's own refusals (a body that is no JSON, too large, against the schema) as rows of the table. */
export function httpError(thrown: HttpError): TollgateError {
  if (thrown instanceof TollgateError) return thrown;
  const status = thrown.statusCode ?? 500;
  if (status >= 500) return new TollgateError('INTERNAL_ERROR', { cause: thrown });
  // Fastify names the part of the request and the field; the rest is our schema's own text.
  if (thrown.validation !== undefined) return new TollgateError('FORMAT_ERROR', { text: thrown.message });
  if (status === 413) return new TollgateError('MESSAGE_TOO_LARGE', { cause: thrown });
  return new TollgateError('FORMAT_ERROR', { cause: thrown });
}
