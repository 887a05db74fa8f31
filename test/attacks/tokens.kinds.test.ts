import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { claimsWith, forgeToken, hs256 } from '../support/forged-tokens.ts';
import { nodeUrl } from '../support/nodes.ts';
import { acceptedAs, EVERYWHERE, present, refusedWith } from '../support/presentations.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { serviceHeaders, startService } from '../support/services.ts';
import { stack } from '../support/stack.ts';
import {
  ACCEPTED_TYPES,
  CLIENT_TOKENS,
  type ClaimChanges,
  NO_BEARER_TOKENS,
  REFUSED_TYPES,
  USER_TOKENS,
} from '../support/token-kinds.ts';
import { SecondDeployment } from '../support/token-lifecycle.ts';
import { freshUserId, login, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const REFUSED = refusedWith('VALIDATION_FAILED', EVERYWHERE);
const everywhere = { ways: EVERYWHERE } as const;

/** A header without `typ` if it is undefined. */
const headerOf = (typ: unknown) => JSON.parse(JSON.stringify({ alg: 'HS256', typ }));

describe('a user’s access token', () => {
  it.each(USER_TOKENS)('is accepted in every place as %s writes it', async (_issuer, header, changes) => {
    const sub = freshUserId();
    const payload = claimsWith({ sub, token_use: undefined, ...changes });
    const token = forgeToken({ header: { alg: 'HS256', ...header }, payload });
    expect(await present(token, { ...everywhere, inTurn: true })).toEqual(acceptedAs(sub, EVERYWHERE));
  });

  it.each(ACCEPTED_TYPES)('is accepted with the type %s', async (typ) => {
    const sub = freshUserId();
    const token = forgeToken({ header: headerOf(typ), payload: claimsWith({ sub }) });
    expect(await present(token, { ...everywhere, inTurn: true })).toEqual(acceptedAs(sub, EVERYWHERE));
  });
});

describe('a token of another kind, with a signature that fits', () => {
  it.each(REFUSED_TYPES)('C14 is VALIDATION_FAILED in every place with the type %j', async (typ) => {
    const token = forgeToken({ header: headerOf(typ), payload: claimsWith() });
    expect(await present(token, everywhere)).toEqual(REFUSED);
  });

  it.each(NO_BEARER_TOKENS)('C14 C24 is VALIDATION_FAILED in every place: %s', async (_what, changes) => {
    expect(await present(forgeToken({ payload: claimsWith(changes) }), everywhere)).toEqual(REFUSED);
  });

  it.each(CLIENT_TOKENS)(
    'is VALIDATION_FAILED in every place when a client got it for itself: %s',
    async (_how, changes) => {
      const sub = freshUserId();
      for (const token_use of ['access', undefined]) {
        const payload = claimsWith({ sub, token_use, ...changes(sub) });
        expect(await present(forgeToken({ payload }), everywhere)).toEqual(REFUSED);
      }
    },
  );

  it('C24 is a token all the same when the scheme is DPoP: INVALID_FORMAT', async () => {
    const headers = { Authorization: `DPoP ${forgeToken()}` };
    const raw = openRawSocket({ url: nodeUrl(0), path: '/ws/secure', headers });
    expect(await until(() => raw.closeFrame)).toEqual({ code: 1008, reason: 'INVALID_FORMAT' });
  });
});

describe('a service’s token', () => {
  const freshId = () => `kind-${randomBytes(6).toString('hex')}`;

  function serviceTokenWith(id: string, { header = {}, changes = {} }: { header?: object; changes?: ClaimChanges }) {
    const claims = { sub: `service:${id}`, token_use: 'service', scope: 'usage:read', client_id: id };
    return forgeToken({ header: { alg: 'HS256', ...header }, payload: claimsWith({ ...claims, ...changes }) });
  }

  /**
   * Presents the token at the handshake, in a message, as a newer token of the service, and at a route in both schemes.
   */
  async function presentService(id: string, token: string): Promise<string[]> {
    const url = nodeUrl(0);
    const handshake = openRawSocket({ url, path: '/ws/secure', headers: serviceHeaders(id, token) });
    const inBand = openRawSocket({ url, path: '/ws' });
    await until(() => inBand.frames[0]);
    inBand.sendFrame(JSON.stringify({ type: 'service_auth', service_id: id, context: `service:${id}`, token }));
    const { headers } = await startService(id);
    const live = openRawSocket({ url, path: '/ws', headers });
    await until(() => live.frames[0]);
    live.sendFrame(JSON.stringify({ type: 'token_refresh', token }));
    const outcomes = [
      (await until(() => handshake.closeFrame ?? answerOf(handshake.frames[0]))) as { reason?: string; user?: string },
      (await until(() => inBand.closeFrame ?? answerOf(inBand.frames[1]))) as { reason?: string; user?: string },
      await until(() => answerOf(live.frames[1])),
    ].map(({ reason, user }) => reason ?? user ?? '');
    for (const raw of [handshake, inBand, live]) raw.destroy();
    for (const authorization of [`Bearer ${token}`, serviceHeaders(id, token).authorization ?? '']) {
      const response = await fetch(new URL('/v1/usage/records', url), {
        headers: { ...serviceHeaders(id, token), authorization },
      });
      const { error } = (await response.json()) as { error?: { code?: string } };
      outcomes.push(`${response.status} ${error?.code ?? ''}`.trim());
    }
    return outcomes;
  }

  /** Returns the user of a response, or the code of a refusal that leaves the connection open. */
  function answerOf(frame: { payload: Buffer } | undefined): { reason?: string; user?: string } | undefined {
    if (!frame) return undefined;
    const { type, code, user_id, payload } = JSON.parse(`${frame.payload}`);
    if (type === 'error') return { reason: code };
    return { user: user_id ?? payload?.user_id ?? type };
  }

  const refused = (code: string) => [code, code, code, `401 ${code}`, `401 ${code}`];

  it('is accepted in every place with its own client as client_id, so that refusals below mean something', async () => {
    for (const typ of ['at+jwt', 'JWT', undefined]) {
      const id = freshId();
      const exp = Math.floor(Date.now() / 1000) + 7_200;
      const outcomes = await presentService(id, serviceTokenWith(id, { header: headerOf(typ), changes: { exp } }));
      expect(outcomes).toEqual([`service:${id}`, `service:${id}`, 'token_refreshed', '200', '200']);
    }
  });

  it.each(REFUSED_TYPES)('is VALIDATION_FAILED in every place with the type %j', async (typ) => {
    const id = freshId();
    const token = serviceTokenWith(id, { header: headerOf(typ) });
    expect(await presentService(id, token)).toEqual(refused('VALIDATION_FAILED'));
  });

  it.each(NO_BEARER_TOKENS)('is VALIDATION_FAILED in every place when it is %s', async (_what, changes) => {
    const id = freshId();
    const token = serviceTokenWith(id, { changes });
    expect(await presentService(id, token)).toEqual(refused('VALIDATION_FAILED'));
  });
});

describe('the reference auth service', () => {
  const form = (values: Record<string, string>) => ({ method: 'POST', body: new URLSearchParams(values) });
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
  let service = '';

  beforeAll(async () => {
    service = await serviceToken('usage:read admin token:exchange');
  });

  async function ask(path: string, request: RequestInit) {
    const response = await fetch(new URL(path, stack().authUrl), request);
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  }

  /**
   * Returns the auth service's view of a user's token: as the subject of an exchange, at introspection, and at the
   * older route.
   */
  async function saidOf(token: string) {
    const exchange = {
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: token,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    };
    const exchanged = await ask('/oauth/token', { ...form(exchange), headers: bearer(service) });
    const introspected = await ask('/oauth/introspect', { ...form({ token }), headers: bearer(service) });
    const validated = await ask('/auth/validate', { ...form({}), headers: bearer(token) });
    return {
      exchange: `${exchanged.status} ${exchanged.body.code ?? ''}`.trim(),
      active: introspected.body.active,
      validate: validated.body.error ?? validated.body.valid,
    };
  }

  const GOOD = { exchange: '200', active: true, validate: true };
  const BAD = { exchange: '400 VALIDATION_FAILED', active: false, validate: 'VALIDATION_FAILED' };

  /** Returns the claims of a live session. */
  async function liveClaims(): Promise<Record<string, unknown>> {
    const { access_token } = await login('pro');
    const [header = '', payload = ''] = access_token.split('.');
    expect(JSON.parse(`${Buffer.from(header, 'base64url')}`)).toEqual({ alg: 'HS256', typ: 'at+jwt' });
    return JSON.parse(`${Buffer.from(payload, 'base64url')}`);
  }

  it('types its tokens, and accepts them in every place', async () => {
    const payload = await liveClaims();
    for (const typ of ACCEPTED_TYPES)
      expect(await saidOf(forgeToken({ header: headerOf(typ), payload }))).toEqual(GOOD);
  });

  it('C14 C24 refuses the types, the kinds and the clients that gateways refuse', async () => {
    const claims = await liveClaims();
    const sub = String(claims.sub);
    const tokens: [unknown, string][] = [
      ...REFUSED_TYPES.map((typ): [unknown, string] => [typ, forgeToken({ header: headerOf(typ), payload: claims })]),
      ...NO_BEARER_TOKENS.map(([kind, changes]): [unknown, string] => {
        return [kind, forgeToken({ payload: JSON.parse(JSON.stringify({ ...claims, ...changes })) })];
      }),
      ...CLIENT_TOKENS.map(([kind, changes]): [unknown, string] => {
        return [kind, forgeToken({ payload: { ...claims, ...changes(sub) } })];
      }),
      ['a claim twice', forgeToken({ payload: `{"sub":"user_1",${JSON.stringify(claims).slice(1)}` })],
      ['a header twice', forgeToken({ header: '{"typ":"logout+jwt","alg":"HS256","typ":"JWT"}', payload: claims })],
    ];
    for (const [kind, token] of tokens) expect([kind, await saidOf(token)]).toEqual([kind, BAD]);
  });

  it('revokes nothing for a token of another kind, and the session lives on', async () => {
    const claims = await liveClaims();
    const other = forgeToken({ header: headerOf('logout+jwt'), payload: claims });
    const answer = await ask('/oauth/revoke', { ...form({ token: other }), headers: bearer(service) });
    expect(answer.status).toBe(200);
    expect(await saidOf(forgeToken({ payload: claims }))).toEqual(GOOD);
  });

  it('is asked nothing with a service’s token of another kind', async () => {
    const claims = claimsWith({ sub: 'service:kinds', token_use: 'service', scope: 'admin', client_id: 'kinds' });
    const token = forgeToken({ payload: await liveClaims() });
    const introspect = (by: string) => ask('/oauth/introspect', { ...form({ token }), headers: bearer(by) });
    expect((await introspect(forgeToken({ payload: claims }))).status).toBe(200);
    for (const typ of REFUSED_TYPES) {
      const answer = await introspect(forgeToken({ header: headerOf(typ), payload: claims }));
      expect([typ, answer.status, answer.body.error]).toEqual([typ, 401, 'invalid_client']);
    }
  });

  it('knows a refresh token and its tokens in one spelling only', async () => {
    const { refresh_token, access_token } = await login('pro');
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const spelled = (token: string, bits: number) => {
      return token.slice(0, -1) + alphabet[alphabet.indexOf(token.at(-1) ?? '') + bits];
    };
    for (const bits of [1, 2, 3]) {
      const refresh = { grant_type: 'refresh_token', refresh_token: spelled(refresh_token, bits) };
      expect(await ask('/oauth/token', form(refresh))).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
      expect(await saidOf(spelled(access_token, bits))).toEqual(BAD);
    }
    // None of these counted as the reuse of a refresh token, which would have ended the session.
    const refresh = { grant_type: 'refresh_token', refresh_token };
    expect((await ask('/oauth/token', form(refresh))).status).toBe(200);
  });
});

describe('the token that a worker got for a session', () => {
  it('is not taken over by its connections when it is of another kind, and they live on', async () => {
    const deployment = await SecondDeployment.start();
    const sign = hs256(deployment.config.JWT_SECRET_KEY ?? '');
    const { access_token } = await deployment.login();
    const claims = JSON.parse(`${Buffer.from(access_token.split('.')[1] ?? '', 'base64url')}`);
    const client = await deployment.connect(access_token);
    const ref = { userId: claims.sub, session: `sid:${claims.sid}` } as const;
    let exp = claims.exp;
    const exchanged = async (header: object, changes: ClaimChanges): Promise<string> => {
      exp += 10;
      const payload = JSON.parse(JSON.stringify({ ...claims, exp, ...changes }));
      const token = forgeToken({ header: { alg: 'HS256', ...header }, payload, sign });
      await deployment.tokenSessions.refreshed(ref, token, exp * 1000);
      return token;
    };
    for (const typ of REFUSED_TYPES) await exchanged(headerOf(typ), {});
    for (const [, changes] of NO_BEARER_TOKENS) await exchanged({}, changes);
    for (const [, changes] of CLIENT_TOKENS) await exchanged({}, changes(claims.sub));
    const good = await exchanged({ typ: 'at+jwt' }, {});
    await client.waitFor('token_refreshed');
    const refreshed = client.events.filter(({ type }) => type === 'token_refreshed');
    expect(refreshed.map(({ fields }) => fields.access_token)).toEqual([good]);
  });
});
