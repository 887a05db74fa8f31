import { fileURLToPath } from 'node:url';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import type { Clock } from '../lib/clock.ts';
import { VERSION } from '../lib/version.ts';
import { TollgateError } from '../protocol/errors.ts';
import { type ConsoleFile, ConsoleFiles, INDEX } from './console-files.ts';
import type { ConsoleSignIn, SignInEndpoints } from './console-sign-in.ts';

/** The built files. `npm start` and the image build them; they are not committed. */
export const CONSOLE_FOLDER = fileURLToPath(new URL('../../console/dist/', import.meta.url));
const NOT_BUILT =
  'The console is not built on this node. Run "npm run build:console", or use an image that contains it.';
const YEAR_SECONDS = 31_536_000;

export type ConsoleConfig = Pick<
  Config,
  | 'AUTH_PUBLIC_URL'
  | 'CONSOLE_CLIENT_ID'
  | 'CONSOLE_ISSUER'
  | 'CONSOLE_PROMETHEUS_URL'
  | 'CONSOLE_SCOPE'
  | 'CONSOLE_TRACES_URL'
  | 'ENVIRONMENT'
  | 'JWT_ISSUER'
>;

export interface ConsoleRoutesDeps {
  readonly signIn: Pick<ConsoleSignIn, 'endpoints'>;
  readonly clock: Pick<Clock, 'now'>;
  /** Folder of the built files. */
  readonly folder?: string;
}

/**
 * `/console/`: the built console, a page of static files. A path without a file extension is one of its pages, so it
 * gets `index.html`. `/console/config.json` describes the sign-in. None of it needs a credential, and none of it has
 * data.
 */
export function registerConsoleRoutes(app: FastifyInstance, config: ConsoleConfig, deps: ConsoleRoutesDeps): void {
  const { signIn, clock, folder = CONSOLE_FOLDER } = deps;
  const files = new ConsoleFiles(folder, clock);
  app.get('/console', { schema: { hide: true } }, (_request, reply) => reply.redirect('/console/'));
  app.get('/console/config.json', { schema: { hide: true } }, async (_request, reply) => {
    return reply.headers({ 'cache-control': 'no-cache', ...SAFE }).send(settings(config, await signIn.endpoints()));
  });
  app.get<{ Params: { '*': string } }>('/console/*', { schema: { hide: true } }, async (request, reply) => {
    const { '*': path } = request.params;
    const isPage = !path.slice(path.lastIndexOf('/') + 1).includes('.');
    const file = await files.find(isPage ? INDEX : path);
    if (!file) throw new TollgateError('ENDPOINT_NOT_FOUND', files.isBuilt ? {} : { text: NOT_BUILT });
    const policy = contentSecurityPolicy(config, await signIn.endpoints());
    return send(request, reply.headers({ ...SAFE, 'content-security-policy': policy }), file);
  });
}

/** Headers of every response: RFC 9110 (`vary`), and what limits other sites and the page itself. */
const SAFE = {
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
};

function send(request: FastifyRequest, reply: FastifyReply, file: ConsoleFile): FastifyReply {
  const { type, body, gzipped, etag, isHashed } = file;
  const caching = isHashed ? `public, max-age=${YEAR_SECONDS}, immutable` : 'no-cache';
  reply.headers({ 'cache-control': caching, etag, vary: 'Accept-Encoding' });
  const { 'if-none-match': known, 'accept-encoding': accepted } = request.headers;
  if (known?.split(',').some((one) => one.trim() === etag)) return reply.status(304).send();
  reply.type(type);
  const acceptsGzip = /(^|,)\s*gzip\s*(,|$)/.test(String(accepted ?? ''));
  if (gzipped === undefined || !acceptsGzip) return reply.send(body);
  return reply.header('content-encoding', 'gzip').send(gzipped);
}

function settings(config: ConsoleConfig, endpoints: SignInEndpoints): object {
  const { ENVIRONMENT: environment } = config;
  return {
    version: VERSION,
    environment,
    issuer: config.CONSOLE_ISSUER ?? config.JWT_ISSUER,
    client_id: config.CONSOLE_CLIENT_ID,
    scope: config.CONSOLE_SCOPE,
    endpoints,
    redirect_path: '/console/callback',
    post_logout_path: '/console/',
    demo_accounts: environment === 'development' || environment === 'test',
    auth_service_url: config.AUTH_PUBLIC_URL,
    links: { prometheus: config.CONSOLE_PROMETHEUS_URL ?? null, traces: config.CONSOLE_TRACES_URL ?? null },
  };
}

/** Allows the console to load and call only this gateway, and to call the issuer of its token. */
function contentSecurityPolicy(config: ConsoleConfig, endpoints: SignInEndpoints): string {
  const { authorization, token, revocation, end_session: endSession } = endpoints;
  const issuer = config.CONSOLE_ISSUER ?? config.AUTH_PUBLIC_URL;
  const origins = (urls: readonly (string | null)[]) => {
    const known = urls.filter((url) => url !== null).map((url) => new URL(url).origin);
    return [...new Set(known)].join(' ');
  };
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    "manifest-src 'self'",
    `connect-src 'self' ${origins([issuer, token, revocation])}`,
    `form-action 'self' ${origins([issuer, authorization, endSession])}`,
    "base-uri 'none'",
    "object-src 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
}
