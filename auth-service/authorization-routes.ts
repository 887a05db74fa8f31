import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Clock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import { toTollgateError } from '../src/protocol/errors.ts';
import type { AuthorizationCodes } from './authorization-codes.ts';
import type { ConsoleClient } from './console-client.ts';
import type { Grants } from './grants.ts';
import type { IdTokens } from './id-tokens.ts';
import { MAX_NAME_LENGTH, MAX_SECRET_LENGTH, MAX_TOKEN_LENGTH, optionalText, parameters } from './parameters.ts';
import type { Sessions } from './sessions.ts';
import { STYLE, STYLE_PATH, sendMessage, sendSignIn } from './sign-in-page.ts';
import { DEMO_USERS } from './users.ts';

export const AUTHORIZE_PATH = '/oauth/authorize';
export const END_SESSION_PATH = '/oauth/end-session';

const MAX_URI_LENGTH = 2_048;
const MAX_STATE_LENGTH = 1_024;
/** A SHA-256 digest in base64url: RFC 7636 section 4.2. */
const CHALLENGE = /^[\w-]{43}$/;
/** Status of a redirect after a POST that the browser follows with GET. */
const SEE_OTHER = 303;

const REQUEST_PARAMETERS = {
  response_type: optionalText(64),
  client_id: optionalText(MAX_NAME_LENGTH),
  redirect_uri: optionalText(MAX_URI_LENGTH),
  scope: optionalText(512),
  state: optionalText(MAX_STATE_LENGTH),
  nonce: optionalText(MAX_STATE_LENGTH),
  code_challenge: optionalText(128),
  code_challenge_method: optionalText(16),
  response_mode: optionalText(32),
  prompt: optionalText(64),
  login_hint: optionalText(MAX_NAME_LENGTH),
};
const AuthorizationRequest = z.object(REQUEST_PARAMETERS);
type AuthorizationRequest = z.infer<typeof AuthorizationRequest>;
const SignIn = z.object({
  ...REQUEST_PARAMETERS,
  email: optionalText(MAX_NAME_LENGTH),
  password: optionalText(MAX_SECRET_LENGTH),
});
const EndSession = z.object({
  id_token_hint: optionalText(MAX_TOKEN_LENGTH),
  client_id: optionalText(MAX_NAME_LENGTH),
  post_logout_redirect_uri: optionalText(MAX_URI_LENGTH),
  state: optionalText(MAX_STATE_LENGTH),
});

export interface AuthorizationDeps {
  readonly client: ConsoleClient;
  readonly codes: AuthorizationCodes;
  readonly grants: Pick<Grants, 'signIn'>;
  readonly idTokens: IdTokens;
  readonly sessions: Pick<Sessions, 'end'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A request whose client and redirect URI are known: errors can be sent to the client. */
interface ClientRequest extends AuthorizationRequest {
  readonly redirect_uri: string;
}

/**
 * Registers the authorization endpoint (RFC 6749 section 3.1, with PKCE and RFC 9207) and the end-session endpoint
 * (OpenID Connect RP-Initiated Logout). There is no sign-in cookie: each authorization shows the sign-in page.
 */
export function registerAuthorizationRoutes(
  app: FastifyInstance,
  deps: AuthorizationDeps,
  { issuer }: { readonly issuer: string },
): void {
  app.get(STYLE_PATH, async (_request, reply) => {
    const headers = { 'cache-control': 'public, max-age=300', 'x-content-type-options': 'nosniff' };
    return reply.headers(headers).type('text/css; charset=utf-8').send(STYLE);
  });

  app.get(AUTHORIZE_PATH, async ({ query }, reply) => {
    const request = clientRequest(parsed(AuthorizationRequest, query), deps, reply);
    if (!request) return reply;
    const refusal = faultOf(request);
    if (refusal) return redirect(reply, request, { ...refusal, iss: issuer });
    return signInPage(reply, request, request.login_hint ?? '');
  });

  app.post(AUTHORIZE_PATH, async ({ body }, reply) => {
    const form = parsed(SignIn, body);
    const request = clientRequest(form, deps, reply);
    if (!request) return reply;
    const { email = '', password = '' } = form ?? {};
    const refusal = faultOf(request);
    if (refusal) return redirect(reply, request, { ...refusal, iss: issuer });
    return signIn(reply, { ...deps, request, email, password, issuer });
  });

  const endSession = (request: FastifyRequest, reply: FastifyReply) => {
    return signOut(reply, parsed(EndSession, request.method === 'GET' ? request.query : request.body), deps);
  };
  app.get(END_SESSION_PATH, endSession);
  app.post(END_SESSION_PATH, endSession);
}

/** Returns undefined for parameters that are repeated or too long (RFC 6749 section 3.1). */
function parsed<T>(schema: z.ZodType<T>, input: unknown): T | undefined {
  try {
    return parameters(schema, input);
  } catch {
    return undefined;
  }
}

/**
 * Checks client and redirect URI. With another one, the browser must not be redirected: RFC 6749 section 4.1.2.1.
 * @returns undefined after a page has been sent
 */
function clientRequest(
  request: AuthorizationRequest | undefined,
  { client }: AuthorizationDeps,
  reply: FastifyReply,
): ClientRequest | undefined {
  const uri = request?.redirect_uri;
  if (request && uri !== undefined && request.client_id === client.id && client.allowsRedirect(uri)) {
    return { ...request, redirect_uri: uri };
  }
  const text = 'The page that sent you here is not registered: its client_id or redirect_uri is unknown.';
  sendMessage(reply, 'Sign-in is not possible', text, 400);
  return undefined;
}

/** Returns the error response for a request that cannot be granted; undefined for a valid one. */
function faultOf(request: ClientRequest): { readonly error: string; readonly error_description: string } | undefined {
  const fault = (error: string, error_description: string) => ({ error, error_description });
  const { response_type: type, response_mode: mode = 'query', code_challenge: challenge, prompt = '' } = request;
  if (type !== 'code') return fault('unsupported_response_type', 'response_type must be code.');
  if (mode !== 'query') return fault('invalid_request', 'response_mode must be query.');
  if (challenge === undefined || !CHALLENGE.test(challenge)) {
    return fault('invalid_request', 'code_challenge must be a SHA-256 digest in base64url.');
  }
  if (request.code_challenge_method !== 'S256') return fault('invalid_request', 'code_challenge_method must be S256.');
  if (prompt.split(' ').includes('none')) return fault('login_required', 'The service has no sign-in session.');
  return undefined;
}

function redirect(reply: FastifyReply, request: ClientRequest, fields: Readonly<Record<string, string>>): FastifyReply {
  const url = new URL(request.redirect_uri);
  for (const [name, value] of Object.entries(fields)) url.searchParams.set(name, value);
  if (request.state !== undefined) url.searchParams.set('state', request.state);
  return reply.header('referrer-policy', 'no-referrer').redirect(url.href, SEE_OTHER);
}

function isSent(entry: [string, unknown]): entry is [string, string] {
  return typeof entry[1] === 'string';
}

function signInPage(reply: FastifyReply, request: ClientRequest, email: string, problem?: string): FastifyReply {
  const sent = Object.entries(AuthorizationRequest.parse(request)).filter(isSent);
  const demoAccounts = DEMO_USERS.map((user) => user.email);
  const returnsTo = new URL(request.redirect_uri).origin;
  const page = { parameters: Object.fromEntries(sent), email, problem, demoAccounts, returnsTo };
  return sendSignIn(reply, page, problem === undefined ? 200 : 401);
}

async function signIn(
  reply: FastifyReply,
  {
    request,
    email,
    password,
    issuer,
    client,
    codes,
    grants,
    clock,
    logger,
  }: AuthorizationDeps & {
    readonly request: ClientRequest;
    readonly email: string;
    readonly password: string;
    readonly issuer: string;
  },
): Promise<FastifyReply> {
  try {
    const user = await grants.signIn(email, password);
    const code = await codes.issue({
      redirectUri: request.redirect_uri,
      challenge: request.code_challenge ?? '',
      userId: user.id,
      email: user.email,
      scope: client.grantedScope(request.scope ?? '', user.roles),
      nonce: request.nonce,
      signedInAt: clock.now(),
    });
    return redirect(reply, request, { code, iss: issuer });
  } catch (thrown) {
    const error = toTollgateError(thrown);
    if (error.row.http >= 500) logger.error({ err: thrown }, 'sign-in failed');
    return signInPage(reply, request, email, SIGN_IN_PROBLEMS[error.code] ?? error.message);
  }
}

const SIGN_IN_PROBLEMS: Readonly<Record<string, string>> = {
  VALIDATION_FAILED: 'E-mail or password is wrong.',
};

async function signOut(
  reply: FastifyReply,
  request: z.infer<typeof EndSession> | undefined,
  { client, idTokens, sessions }: AuthorizationDeps,
): Promise<FastifyReply> {
  const { id_token_hint: hint, post_logout_redirect_uri: uri, state } = request ?? {};
  const sessionId = hint === undefined ? undefined : idTokens.sessionOf(hint);
  if (sessionId !== undefined) await sessions.end(sessionId);
  if (uri === undefined || !client.allowsReturn(uri)) {
    const text = sessionId === undefined ? 'There is no session to end.' : 'Your session has ended.';
    return sendMessage(reply, 'Signed out', text, 200);
  }
  const url = new URL(uri);
  if (state !== undefined) url.searchParams.set('state', state);
  return reply.header('referrer-policy', 'no-referrer').redirect(url.href, SEE_OTHER);
}
