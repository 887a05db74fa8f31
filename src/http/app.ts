import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply, LogController } from 'fastify';
import { hasValidHost } from '../lib/host.ts';
import type { Logger } from '../lib/logger.ts';
import { StalledResponses } from '../lib/stalled-responses.ts';
import { publicError, TollgateError, toTollgateError } from '../protocol/errors.ts';
import { errorBody, errorHeaders } from '../protocol/http-errors.ts';
import { checkJsonBounds, type JsonBounds } from '../protocol/json-bounds.ts';

const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/**
 * Interval at which Node checks the two timeouts above. Its default is 30 seconds. It checks unfinished requests only.
 */
const TIMEOUT_CHECK_MS = 1_000;
const SERVER_OPTIONS = {
  headersTimeout: HEADERS_TIMEOUT_MS,
  requestTimeout: REQUEST_TIMEOUT_MS,
  connectionsCheckingInterval: TIMEOUT_CHECK_MS,
  // Node would respond without a body, and does not validate the value. `hasValidHost` checks both.
  requireHostHeader: false,
  // A server can ignore other upgrades (RFC 9110 section 7.8): curl and Java offer h2c.
  shouldUpgradeCallback: (request: IncomingMessage) => request.headers.upgrade?.toLowerCase() === 'websocket',
};
/** Node's error code of a request that was not complete in time. */
const REQUEST_TIMEOUT = 'ERR_HTTP_REQUEST_TIMEOUT';
const KEEP_ALIVE_MS = 65_000;
/** Longer than the bound of event streams, which end with an error event of their protocol (`OUTPUT_TIMEOUT_MS`). */
const STALLED_RESPONSE_MS = 15_000;
const BODY_LIMIT_BYTES = 64 * 1024;
/** Bounds of JSON bodies. The largest one, an event for a user, has 8 KiB. */
const BODY_BOUNDS: JsonBounds = { maxDepth: 32, maxValues: 500 };
/**
 * Bound of a path parameter: a user id of 255 characters, all percent-encoded. With the router's default of 100, a
 * longer id would get a 404.
 */
const MAX_PARAMETER_LENGTH = 3 * 255;

/**
 * Twice the length that the longest route needs. The router decodes a path before it searches for a route, at 50 µs per
 * kB of escapes. A longer path is replaced by `NO_PATH`, which no route has.
 */
const MAX_PATH_LENGTH = 1_024;
const NO_PATH = '/path-too-long';

/** Receives invalid input and long tasks, to count them per client address. */
export interface InputWatch {
  /** Counts input that is not HTTP, or has too large a header. */
  unreadable(socket: Socket): void;
  /** Runs the synchronous part of handling a request, or of parsing its body. */
  run<T>(surface: 'http' | 'http_body', request: IncomingMessage, work: () => T): T;
}

const UNWATCHED: InputWatch = { unreadable: () => {}, run: (_surface, _request, work) => work() };

export interface AppOptions {
  /** Counts invalid input and long tasks per address; by default nothing is counted. */
  readonly watch?: InputWatch;
  readonly logger: Logger;
  /** Number of trusted proxies that append to `X-Forwarded-For`; with 0 the header is ignored. */
  readonly trustedProxyHops: number;
  /** Handles a request before Fastify and returns true: for servers that read the body themselves. */
  readonly intercept?: (request: IncomingMessage, response: ServerResponse) => boolean;
  /** Whether a path accepts only upgrades: a plain request gets a 426. */
  readonly isUpgradePath?: (path: string) => boolean;
  /** Time in which a client reads none of a response before its connection is reset. */
  readonly stalledResponseMs?: number;
}

/**
 * Creates an HTTP server with the bounds and the error form that all Tollgate processes share. All errors, including
 * those of Fastify and Node, have the form `{ error: { code, message, retryable, … } }`.
 */
export function createApp({
  logger,
  trustedProxyHops,
  intercept,
  isUpgradePath,
  watch = UNWATCHED,
  stalledResponseMs = STALLED_RESPONSE_MS,
}: AppOptions): FastifyInstance {
  const refuse = (thrown: HttpError, reply: FastifyReply) => {
    const error = httpError(thrown);
    if (error.code === 'INTERNAL_ERROR') logger.error({ err: thrown }, 'request failed');
    return reply
      .status(error.row.http)
      .headers(errorHeaders(error))
      .send({ error: publicError(error) });
  };
  const stalled = new StalledResponses(stalledResponseMs, ({ req }) => {
    logger.info({ method: req.method, path: req.url?.split('?')[0] }, 'the client did not read the response');
  });
  const app = Fastify({
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    trustProxy: (_address, hop) => hop < trustedProxyHops,
    bodyLimit: BODY_LIMIT_BYTES,
    routerOptions: { maxParamLength: MAX_PARAMETER_LENGTH },
    rewriteUrl: ({ url = '' }) => (pathLength(url) > MAX_PATH_LENGTH ? NO_PATH : url),
    forceCloseConnections: true,
    // The parser rejects a body that contains the key `__proto__`.
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    clientErrorHandler: (error, socket) => {
      if (refuseUnreadable(error, socket) && error.code !== REQUEST_TIMEOUT) watch.unreadable(socket);
    },
    // For paths that cannot be decoded: the router does not call the error handler.
    frameworkErrors: (thrown, _request, reply) => void refuse(thrown, reply),
    serverFactory: (handler) => {
      return createServer(SERVER_OPTIONS, (request, response) => {
        stalled.watch(response);
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
  app.addHook('onClose', async () => stalled.close());
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

/** Treats an empty JSON body as absent: many clients send the content type of JSON without a body. */
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

/** Rejects a request without one valid `Host` header. RFC 9112 section 3.2. */
function refuseHost(response: ServerResponse): void {
  const body = errorBody(new TollgateError('FORMAT_ERROR', { text: 'The request must have one valid Host header.' }));
  const headers = { 'content-type': 'application/json; charset=utf-8', 'content-length': Buffer.byteLength(body) };
  response.writeHead(400, { ...headers, connection: 'close' }).end(body);
}

/**
 * Responds to input that is not HTTP, has too large a header or is too slow, in the form of all errors.
 * @returns whether a response was sent
 */
function refuseUnreadable(error: Error & { code?: string }, socket: Socket): boolean {
  // A proxy or browser that preconnects has sent nothing. It could take a response for that to its first request.
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

/** Errors that Fastify throws. */
type HttpError = Error & { readonly statusCode?: number; readonly validation?: unknown; readonly code?: string };

/** Public texts of bodies that cannot be read, by the code of Fastify. */
const UNREADABLE_BODIES: Readonly<Record<string, string>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE:
    'The body has a content type that the route does not read. Send JSON with "Content-Type: application/json".',
  FST_ERR_CTP_INVALID_JSON_BODY: 'The body is not valid JSON. Correct it and send the request again.',
};

/** Converts errors of Fastify (invalid JSON, too large a body, a schema violation) to errors of the table. */
export function httpError(thrown: HttpError): TollgateError {
  if (thrown instanceof TollgateError) return thrown;
  const status = thrown.statusCode ?? 500;
  if (status >= 500) return new TollgateError('INTERNAL_ERROR', { cause: thrown });
  // The text is public: Fastify adds the part of the request and the field to the message of the schema.
  if (thrown.validation !== undefined) return new TollgateError('FORMAT_ERROR', { text: thrown.message });
  if (status === 413) return new TollgateError('MESSAGE_TOO_LARGE', { cause: thrown });
  return new TollgateError('FORMAT_ERROR', { text: UNREADABLE_BODIES[thrown.code ?? ''], cause: thrown });
}
