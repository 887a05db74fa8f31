import { describe, expect, it } from '@jest/globals';
import { freePorts } from '../../scripts/lib/ports.ts';
import { AuthServiceClient, type AuthServiceOptions, isRefusal } from '../../src/auth/client/auth-service-client.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { publicError, TollgateError } from '../../src/protocol/errors.ts';
import { silentLogger } from '../support/core.ts';
import { FAULTS, type FaultyAuthServer, ISSUED, json, startFaultyAuthServer } from '../support/faulty-auth-server.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { closeAfter } from '../support/open-resources.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { until } from '../support/until.ts';

const SECRET = 'a-secret-that-nobody-is-told/+:%';
const TOKEN = 'subject.token.secret';

function client(url: string, options: Partial<AuthServiceOptions> = {}) {
  const clock = new ManualClock();
  const metrics = new Metrics();
  const deps = { clock, metrics, logger: silentLogger, tracing: NO_TRACING };
  const auth = new AuthServiceClient(deps, { url, issuer: url, serviceSecret: SECRET, ...options });
  closeAfter('test', () => auth.close());
  return { auth, clock, metrics };
}

async function start(options: Partial<AuthServiceOptions> = {}) {
  const server = await startFaultyAuthServer();
  return { server, ...client(server.url, options) };
}

async function failure(call: Promise<unknown>): Promise<TollgateError> {
  const thrown = await call.then(
    (value) => new Error(`came to ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  if (thrown instanceof TollgateError) return thrown;
  throw thrown;
}

/** The pauses between attempts follow the manual clock; this advances it until the call has ended. */
async function unattended<T>(clock: ManualClock, call: Promise<T>): Promise<T> {
  const timer = setInterval(() => clock.advance(100), 5);
  return call.finally(() => clearInterval(timer));
}

type Ask = (auth: AuthServiceClient, signal?: AbortSignal) => Promise<unknown>;
const OPERATIONS: [string, Ask][] = [
  ['exchange', (auth, signal) => auth.exchange(TOKEN, signal)],
  ['refresh', (auth, signal) => auth.refresh(TOKEN, signal)],
  ['introspect', (auth, signal) => auth.introspect(TOKEN, signal)],
];

const UNUSABLE = [
  'oversized',
  'oversizedWithoutLength',
  'redirect',
  'wrongType',
  'html',
  'halfJson',
  'noFields',
  'otherFields',
  'notHttp',
] as const;

describe.each(OPERATIONS)('%s', (operation, ask) => {
  it.each(UNUSABLE)('B178 is INVALID_RESPONSE_FORMAT after one request for an answer that is %s', async (fault) => {
    const { server, auth } = await start();
    server.behaviour = FAULTS[fault];
    const error = await failure(ask(auth));
    expect(error).toMatchObject({ code: 'INVALID_RESPONSE_FORMAT', row: { close: 1013, http: 503, retryable: true } });
    expect(server.requests).toHaveLength(1);
    expect(server.strays).toEqual([]);
  });

  it.each(['hang', 'slowBody'] as const)('B105 B176 is AUTH_SERVICE_TIMEOUT in time with a %s', async (fault) => {
    const { server, auth, clock } = await start();
    server.behaviour = FAULTS[fault];
    const error = failure(ask(auth));
    await until(() => server.requests.length === 1);
    clock.advance(2_000);
    expect(await error).toMatchObject({
      code: 'AUTH_SERVICE_TIMEOUT',
      row: { close: 1013, http: 503, retryable: true },
    });
    expect(server.requests).toHaveLength(1);
  });

  it('B105 ends by real time too', async () => {
    const server = await startFaultyAuthServer();
    server.behaviour = FAULTS.hang;
    const deps = { clock: systemClock, metrics: new Metrics(), logger: silentLogger, tracing: NO_TRACING };
    const auth = new AuthServiceClient(deps, {
      url: server.url,
      issuer: server.url,
      serviceSecret: SECRET,
      timeoutMs: 300,
    });
    closeAfter('test', () => auth.close());
    const watch = await Stopwatch.start();
    expect((await failure(ask(auth))).code).toBe('AUTH_SERVICE_TIMEOUT');
    expect(watch.ms).toBeLessThan(watch.allow(1_500));
  });

  it.each(['internalError', 'unavailable', 'tooMany', 'reset'] as const)(
    'B109 B177 is AUTH_SERVICE_UNAVAILABLE with %s',
    async (fault) => {
      const { server, auth, clock } = await start();
      server.behaviour = FAULTS[fault];
      const error = await failure(unattended(clock, ask(auth)));
      expect(error).toMatchObject({ code: 'AUTH_SERVICE_UNAVAILABLE', row: { close: 1013, http: 503 } });
    },
  );

  it('B175 is AUTH_SERVICE_UNAVAILABLE when the port is closed, and names the connection', async () => {
    const [port] = await freePorts(1);
    const { auth, clock } = client(`http://127.0.0.1:${port}`);
    const error = await failure(unattended(clock, ask(auth)));
    expect(error.code).toBe('AUTH_SERVICE_UNAVAILABLE');
    expect(error.message).toMatch(/connection/);
  });

  it('B96 tells a client nothing of tokens, secrets, hosts or what the service said', async () => {
    for (const fault of Object.values(FAULTS).filter((each) => each !== FAULTS.hang && each !== FAULTS.slowBody)) {
      const { server, auth, clock } = await start();
      server.behaviour = fault;
      const answered = JSON.stringify(publicError(await failure(unattended(clock, ask(auth)))));
      for (const secret of ['secret', SECRET, TOKEN, '127.0.0.1', 'undici', 'ECONN', 'proxy', 'stack']) {
        expect(answered).not.toContain(secret);
      }
    }
  });

  it('proves by Basic who asks, and sends the token in the body only', async () => {
    const { server, auth } = await start({ clientId: 'gateway-1' });
    server.behaviour = json({ ...ISSUED, active: true });
    await ask(auth);
    const [received] = server.requests;
    const [id, secret] = Buffer.from(received?.authorization?.slice(6) ?? '', 'base64')
      .toString()
      .split(':');
    expect([id, decodeURIComponent(secret ?? '')]).toEqual(['gateway-1', SECRET]);
    expect(received?.path).not.toContain(TOKEN);
    expect(Object.values(received?.form ?? {})).toContain(TOKEN);
  });

  it('counts each call, with its result', async () => {
    const { server, auth, metrics } = await start();
    server.behaviour = json({ ...ISSUED, active: true });
    await ask(auth);
    server.behaviour = FAULTS.html;
    await failure(ask(auth));
    const text = await metrics.registry.metrics();
    expect(text).toContain(`tollgate_auth_service_requests_total{operation="${operation}",result="ok"} 1`);
    expect(text).toContain(`{operation="${operation}",result="INVALID_RESPONSE_FORMAT"} 1`);
    expect(text).toContain(`tollgate_auth_service_seconds_count{operation="${operation}"} 2`);
  });

  it('B125 ends with the patience of its caller', async () => {
    const { server, auth } = await start();
    server.behaviour = FAULTS.hang;
    const timeout = new AbortController();
    const ended = ask(auth, timeout.signal).catch((error: unknown) => error);
    await until(() => server.requests.length === 1);
    timeout.abort(new Error('gone'));
    expect(await ended).toMatchObject({ message: 'gone' });
  });

  it('fails at once when the client closes', async () => {
    const { server, auth } = await start();
    server.behaviour = FAULTS.hang;
    const error = failure(ask(auth));
    await until(() => server.requests.length === 1);
    await auth.close();
    expect((await error).code).toBe('AUTH_SERVICE_UNAVAILABLE');
  });
});

describe('a repetition', () => {
  const failing = (server: FaultyAuthServer, fault: keyof typeof FAULTS, times: number) => {
    server.behaviour = (response, received) =>
      (server.requests.length > times ? json({ ...ISSUED, active: true }) : FAULTS[fault])(response, received);
  };

  it.each(['reset', 'unavailable'] as const)('B129 makes up for two answers of %s', async (fault) => {
    const { server, auth, clock, metrics } = await start();
    failing(server, fault, 2);
    expect(await unattended(clock, auth.exchange(TOKEN))).toMatchObject({ accessToken: ISSUED.access_token });
    expect(server.requests).toHaveLength(3);
    const text = await metrics.registry.metrics();
    expect(text).toContain('tollgate_auth_service_retries_total{operation="exchange"} 2');
  });

  it('is never made of a refresh whose answer may have been lost', async () => {
    for (const fault of ['reset', 'unavailable', 'internalError'] as const) {
      const { server, auth, clock } = await start();
      failing(server, fault, 1);
      expect((await failure(unattended(clock, auth.refresh(TOKEN)))).code).toBe('AUTH_SERVICE_UNAVAILABLE');
      expect(server.requests).toHaveLength(1);
    }
  });

  it('waits as long as Retry-After says, and is left out when there is no time for it', async () => {
    const { server, auth, clock } = await start();
    server.behaviour = (response, received) =>
      (server.requests.length > 1 ? json(ISSUED) : json({}, 429, { 'retry-after': '1' }))(response, received);
    const startedAt = clock.now();
    await unattended(clock, auth.refresh(TOKEN));
    expect(clock.now() - startedAt).toBeGreaterThanOrEqual(1_000);
    server.behaviour = FAULTS.tooMany;
    const error = await failure(auth.exchange(TOKEN));
    expect(error).toMatchObject({ code: 'AUTH_SERVICE_UNAVAILABLE', retryAfterMs: 30_000 });
    expect(server.requests).toHaveLength(3);
  });

  it('is made for a fifth of the calls at most once the budget is spent', async () => {
    const { server, auth, clock } = await start();
    let requests = 0;
    // One failure in three keeps the breaker closed.
    server.behaviour = (response, received) => {
      requests += 1;
      (requests % 3 === 0 ? FAULTS.unavailable : json(ISSUED))(response, received);
    };
    let now = 0;
    const failed: string[] = [];
    for (let call = 0; call < 200; call++) {
      const before = clock.now();
      await unattended(clock, auth.exchange(TOKEN)).catch((error: TollgateError) => failed.push(error.code));
      now += clock.now() - before;
    }
    expect(requests - 200).toBeLessThanOrEqual(10 + 200 * 0.2 + (now / 1_000) * 2);
    expect(auth.breaker).toBe('closed');
  });
});

describe('a refusal', () => {
  it.each([
    ['TOKEN_REVOKED', 400, { error: 'invalid_request', code: 'TOKEN_REVOKED' }],
    ['USER_BLOCKED', 400, { error: 'invalid_grant', code: 'USER_BLOCKED' }],
    ['TOKEN_EXPIRED', 400, { error: 'invalid_request', code: 'TOKEN_EXPIRED' }],
    ['VALIDATION_FAILED', 400, { error: 'invalid_request', code: 'VALIDATION_FAILED' }],
    ['VALIDATION_FAILED', 400, { error: 'invalid_grant' }],
  ])('is %s for %d %j', async (code, status, body) => {
    const { server, auth } = await start();
    server.behaviour = json(body, status);
    const error = await failure(auth.exchange(TOKEN));
    expect(error.code).toBe(code);
    expect(isRefusal(error)).toBe(true);
    expect(server.requests).toHaveLength(1);
  });

  it.each([
    [401, { error: 'invalid_client' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [401, { error: 'invalid_grant', code: 'TOKEN_REVOKED' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [403, {}, 'AUTH_SERVICE_UNAVAILABLE'],
    [400, { error: 'invalid_request', code: 'NO_SUCH_CODE' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [400, { error: 'unsupported_grant_type' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [403, { error: 'access_denied' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [403, { error: 'unauthorized_client' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [400, { error: 'unauthorized_client' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [400, { error: 'invalid_target' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [400, { error: 'temporarily_unavailable' }, 'AUTH_SERVICE_UNAVAILABLE'],
    [404, {}, 'INVALID_RESPONSE_FORMAT'],
    [400, { error: 5 }, 'INVALID_RESPONSE_FORMAT'],
  ])('is not what %d %j says: that is %s', async (status, body, code) => {
    const { server, auth } = await start();
    server.behaviour = json(body, status);
    const error = await failure(auth.exchange(TOKEN));
    expect(error.code).toBe(code);
    expect(isRefusal(error)).toBe(false);
  });

  it.each([3, 100])('B158 locks no other user out: %d bad tokens', async (tokens) => {
    const { server, auth } = await start();
    server.behaviour = json({ error: 'invalid_grant' }, 400);
    const errors = await Promise.all(Array.from({ length: tokens }, () => failure(auth.exchange(TOKEN))));
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['VALIDATION_FAILED']));
    for (const body of [{ error: 'invalid_client' }, 'no object']) {
      server.behaviour = json(body, body === 'no object' ? 413 : 401);
      for (let i = 0; i < 10; i++) await failure(auth.introspect(TOKEN));
    }
    expect(auth.breaker).toBe('closed');
    server.behaviour = json(ISSUED);
    expect(await auth.exchange(TOKEN)).toMatchObject({ accessToken: ISSUED.access_token });
  });
});

describe('the breaker of the auth service', () => {
  it('B40 B63 B141 B186 opens within five failures, of ten calls at most, and closes when the service is back', async () => {
    for (const fault of ['unavailable', 'reset', 'html', 'tooMany'] as const) {
      const { server, auth, clock, metrics } = await start();
      server.behaviour = FAULTS[fault];
      const codes: string[] = [];
      for (let i = 0; i < 20; i++) codes.push((await failure(unattended(clock, auth.refresh(TOKEN)))).code);
      expect(server.requests.length).toBeLessThanOrEqual(5);
      expect(codes.at(-1)).toBe('AUTH_CIRCUIT_BREAKER_OPEN');
      expect(auth.breaker).toBe('open');
      expect(await metrics.registry.metrics()).toContain('tollgate_auth_breaker_state 2');
      server.behaviour = json(ISSUED);
      clock.advance(5_000);
      expect(await auth.refresh(TOKEN)).toMatchObject({ accessToken: ISSUED.access_token });
      expect(auth.breaker).toBe('closed');
      expect(await metrics.registry.metrics()).toContain('tollgate_auth_breaker_state 0');
    }
  });

  it('B63 lets ten of a hundred that come at once reach a service that hangs', async () => {
    const { server, auth, clock } = await start();
    server.behaviour = json(ISSUED);
    await auth.exchange(TOKEN);
    server.requests.length = 0;
    server.behaviour = FAULTS.hang;
    const calls = Array.from({ length: 100 }, () => failure(auth.exchange(TOKEN)));
    await until(() => server.requests.length === 6);
    clock.advance(2_000);
    const codes = (await Promise.all(calls)).map(({ code }) => code);
    await until(() => auth.breaker === 'open');
    expect(new Set(codes)).toEqual(new Set(['AUTH_SERVICE_TIMEOUT']));
    expect(server.requests.length).toBeLessThanOrEqual(10);
    expect((await failure(auth.exchange(TOKEN))).code).toBe('AUTH_CIRCUIT_BREAKER_OPEN');
  });

  it('refuses at once what is more than can wait, and counts that for no fault', async () => {
    const { server, auth } = await start();
    await auth.exchange(TOKEN);
    const held: (() => void)[] = [];
    server.behaviour = (response, received) => held.push(() => json(ISSUED)(response, received));
    let refused = 0;
    const calls = Array.from({ length: 400 }, () => auth.exchange(TOKEN));
    for (const call of calls) {
      call.catch(() => {
        refused += 1;
      });
    }
    await until(() => held.length === 6 && refused > 0);
    server.behaviour = json(ISSUED);
    for (const answer of held) answer();
    const results = await Promise.allSettled(calls);
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(6 + 256);
    expect(auth.breaker).toBe('closed');
  });

  it('stays open through ten minutes of outage, one probe each rest, and then lets all in again', async () => {
    const { server, auth, clock } = await start();
    server.behaviour = FAULTS.unavailable;
    for (let second = 0; second < 600; second++) {
      await failure(auth.refresh(TOKEN));
      clock.advance(1_000);
    }
    expect(server.requests.length).toBeGreaterThan(100);
    expect(server.requests.length).toBeLessThanOrEqual(5 + 120);
    server.behaviour = json(ISSUED);
    clock.advance(5_000);
    const all = await Promise.allSettled(Array.from({ length: 10 }, () => auth.exchange(TOKEN)));
    expect(all.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThanOrEqual(1);
    expect(await auth.exchange(TOKEN)).toMatchObject({ accessToken: ISSUED.access_token });
  });
});

describe('the metadata', () => {
  it('is fetched once, by however many at once, and again after an hour in the background', async () => {
    const { server, auth, clock } = await start();
    await Promise.all(Array.from({ length: 10 }, () => auth.exchange(TOKEN)));
    expect(server.metadataRequests).toBe(1);
    clock.advance(3_599_000);
    await auth.exchange(TOKEN);
    expect(server.metadataRequests).toBe(1);
    clock.advance(1_000);
    server.metadata = FAULTS.hang;
    await auth.exchange(TOKEN);
    await until(() => server.metadataRequests === 2);
    clock.advance(2_000);
    expect(await auth.exchange(TOKEN)).toMatchObject({ accessToken: ISSUED.access_token });
  });

  it('is asked for again when the clock was set back, and not only when it is where it was', async () => {
    const { server, auth, clock } = await start();
    await auth.exchange(TOKEN);
    clock.set(-3_600_000);
    await auth.exchange(TOKEN);
    await until(() => server.metadataRequests === 2);
  });

  it.each([
    ['of another issuer', { issuer: 'http://127.0.0.1:1' }],
    ['with a token endpoint elsewhere', { token_endpoint: 'http://169.254.169.254/latest' }],
    ['with a token endpoint on another port', { token_endpoint: 'http://127.0.0.1:1/token' }],
    ['with a token endpoint that is no URL', { token_endpoint: '/token' }],
    ['with a token endpoint of another scheme', { token_endpoint: 'file:///etc/passwd' }],
    ['with an introspection endpoint elsewhere', { introspection_endpoint: 'https://evil.example.test/introspect' }],
    ['without a token endpoint', { token_endpoint: undefined }],
  ])('is INVALID_RESPONSE_FORMAT when it is %s, and the secret goes nowhere', async (_what, changes) => {
    const { server, auth } = await start();
    server.metadata = json(server.document(changes));
    expect((await failure(auth.exchange(TOKEN))).code).toBe('INVALID_RESPONSE_FORMAT');
    expect(server.requests).toEqual([]);
  });

  it.each(['html', 'redirect', 'oversized', 'halfJson', 'noFields', 'unknownClient'] as const)(
    'B178 is INVALID_RESPONSE_FORMAT when it is %s',
    async (fault) => {
      const { server, auth } = await start();
      server.metadata = FAULTS[fault];
      expect((await failure(auth.exchange(TOKEN))).code).toBe('INVALID_RESPONSE_FORMAT');
    },
  );

  it('is looked for between the host and the path of the service, and judged by JWT_ISSUER', async () => {
    const server = await startFaultyAuthServer();
    const paths: string[] = [];
    const issuer = 'https://login.example.test/tenant';
    server.metadata = (response, received) => {
      paths.push(received.path);
      json(server.document({ issuer }))(response, received);
    };
    const { auth } = client(`${server.url}/tenant/`, { issuer });
    await auth.exchange(TOKEN);
    expect(paths).toEqual(['/.well-known/oauth-authorization-server/tenant']);
  });

  it('without an introspection endpoint leaves the rest to be used', async () => {
    const { server, auth } = await start();
    server.metadata = json(server.document({ introspection_endpoint: undefined }));
    for (let i = 0; i < 10; i++) expect((await failure(auth.introspect(TOKEN))).code).toBe('INVALID_RESPONSE_FORMAT');
    expect(await auth.exchange(TOKEN)).toMatchObject({ accessToken: ISSUED.access_token });
  });
});
