import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply, LogController } from 'fastify';
import { hasValidHost } from '../lib/host.ts';
import type { Logger } from '../lib/logger.ts';
import { publicError, TollgateError, toTollgateError } from '../protocol/errors.ts';
import { errorBody, errorHeaders } from '../protocol/http-errors.ts';
import { checkJsonBounds, type JsonBounds } from '../protocol/json-bounds.ts';

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
/** Node's code for a request that did not come in time. */
const REQUEST_TIMEOUT = 'ERR_HTTP_REQUEST_TIMEOUT';
const KEEP_ALIVE_MS = 65_000;
const BODY_LIMIT_BYTES = 64 * 1024;
/** The largest body, an event for a user, has 8 KiB. */
const BODY_BOUNDS: JsonBounds = { maxDepth: 32, maxValues: 500 };
/** A user id of 128 characters, each of them percent-encoded; the router's own bound is 100, and makes 404 of the rest. */
const MAX_PARAMETER_LENGTH = 3 * 128;

/**
 * Twice what the longest route needs. The router decodes a path before it looks for a route, at 50 µs per kB of escapes;
 * a longer path is looked for under a name that no route has.
 */
const MAX_PATH_LENGTH = 1_024;
const NO_PATH = '/path-too-long';

/** What counts clients' input, where clients are counted. */
export interface InputWatch {
  /** What came is no HTTP, or too large for it. */
  unreadable(socket: Socket): void;
  /** Runs the synchronous part of handling a request, or of parsing its body. */
  run<T>(surface: 'http' | 'http_body', request: IncomingMessage, work: () => T): T;
}

const UNWATCHED: InputWatch = { unreadable: () => {}, run: (_surface, _request, work) => work() };

export interface AppOptions {
  /** Counts bad input and long tasks per address; nothing is counted by default. */
  readonly watch?: InputWatch;
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
export function createApp({
  logger,
  trustedProxyHops,
  intercept,
  isUpgradePath,
  watch = UNWATCHED,
}: AppOptions): FastifyInstance {
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
    rewriteUrl: ({ url = '' }) => (pathLength(url) > MAX_PATH_LENGTH ? NO_PATH : url),
    forceCloseConnections: true,
    // A body that names `__proto__` is refused by the parser, not handed on.
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    clientErrorHandler: (error, socket) => {
      if (refuseUnreadable(error, socket) && error.code !== REQUEST_TIMEOUT) watch.unreadable(socket);
    },
    // A path that cannot be decoded is refused by the router, which asks no other handler.
    frameworkErrors: (thrown, _request, reply) => void refuse(thrown, reply),
    serverFactory: (handler) => {
      return createServer(SERVER_OPTIONS, (request, response) => {
        watch.run('http', request, () => {
          if (!hasValidHost(request)) {
            watch.unreadable(request.socket);
            refuseHost(response);
          } else if (!intercept?.(request, response)) handler(request, response);
        });
      });
    },
  });
  app.server.keepAliveTimeout = KEEP_ALIVE_MS;
  acceptEmptyJson(app, watch);

  app.setErrorHandler((thrown: HttpError, _request, reply) => refuse(thrown, reply));
  app.setNotFoundHandler(({ method, url }) => {
    const [path = ''] = url.split('?');
    const isUpgrade = (method === 'GET' || method === 'HEAD') && isUpgradePath?.(path);
    throw new TollgateError(isUpgrade ? 'UPGRADE_REQUIRED' : 'ENDPOINT_NOT_FOUND');
  });
  return app;
}

function pathLength(target: string): number {
  const query = target.indexOf('?');
  return query === -1 ? target.length : query;
}

/** Many clients announce JSON for a request without a body too; an empty one counts as none. */
function acceptEmptyJson(app: FastifyInstance, watch: InputWatch): void {
  const parseJson = app.getDefaultJsonParser('error', 'error');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') return done(null, undefined);
    watch.run('http_body', request.raw, () => {
      try {
        checkJsonBounds(String(body), BODY_BOUNDS);
      } catch (error) {
        return done(toTollgateError(error));
      }
      parseJson(request, String(body), done);
    });
  });
}

/** RFC 9112 section 3.2. */
function refuseHost(response: ServerResponse): void {
  const body = errorBody(new TollgateError('FORMAT_ERROR', { text: 'The request must name one valid Host.' }));
  const headers = { 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(body) };
  response.writeHead(400, { ...headers, connection: 'close' }).end(body);
}

/**
 * What is no HTTP, or too large or too slow for it, is answered in the form of every other error.
 * @returns whether it was answered
 */
function refuseUnreadable(error: Error & { code?: string }, socket: Socket): boolean {
  // A proxy or browser that connects beforehand has asked nothing: an answer could be taken for that to its first request.
  if (!socket.writable || socket.bytesRead === 0) {
    socket.destroy();
    return false;
  }
  const overflow = error.code === 'HPE_HEADER_OVERFLOW';
  const late = error.code === REQUEST_TIMEOUT;
  const status = overflow ? '431 Request Header Fields Too Large' : late ? '408 Request Timeout' : '400 Bad Request';
  const row = overflow ? 'MESSAGE_TOO_LARGE' : late ? 'CONNECTION_TIMEOUT' : 'FORMAT_ERROR';
  const body = errorBody(new TollgateError(row, { cause: error }));
  const head = ['content-type: application/json; charset=utf-8', `content-length: ${Buffer.byteLength(body)}`];
  socket.end(`HTTP/1.1 ${status}\r\n${head.join('\r\n')}\r\nconnection: close\r\n\r\n${body}`);
  return true;
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
