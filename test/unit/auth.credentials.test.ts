import { describe, expect, it } from '@jest/globals';
import {
  answeredProtocol,
  BEARER_FORM,
  checkServiceNames,
  findCredential,
  findTicket,
  MAX_TOKEN_BYTES,
  messageCredential,
  requestedProtocols,
  serviceCredential,
  unpaddedProtocols,
} from '../../src/auth/credentials.ts';
import { TollgateError } from '../../src/protocol/errors.ts';

/** A text in the form of a token; its content does not matter here. */
const TOKEN = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJlLi4u';
const OTHER = `${TOKEN}x`;
const base64url = (text: string) => Buffer.from(text).toString('base64url');

function protocols(...entries: string[]) {
  return { 'sec-websocket-protocol': entries.join(', ') };
}

function codeOf(find: () => unknown): string {
  try {
    return `found ${JSON.stringify(find())}`;
  } catch (error) {
    if (error instanceof TollgateError) return error.code;
    throw error;
  }
}

describe('the Authorization header', () => {
  it.each([`Bearer ${TOKEN}`, `bearer ${TOKEN}`, `BEARER   ${TOKEN}`, ` Bearer ${TOKEN} `])(
    'B35 B37 presents a token as %j',
    (authorization) => {
      expect(findCredential({ authorization })).toEqual({ method: 'header', token: TOKEN });
    },
  );

  it.each([
    'Bearer',
    `Basic ${Buffer.from('user:password').toString('base64')}`,
    TOKEN,
    `Bearer ${TOKEN} ${TOKEN}`,
    `Bearer:${TOKEN}`,
    `Token ${TOKEN}`,
    'Bearer not-a-token',
    'Bearer a.b',
    'Bearer a.b.c.d',
    'Bearer a.b.',
    "Bearer ' OR 1=1;--",
    'Bearer <script>alert(1)</script>',
    `Bearer ${TOKEN}\u0000`,
    `Bearer ${'a'.repeat(10_240)}`,
    `Bearer a.${'b'.repeat(MAX_TOKEN_BYTES)}.c`,
  ])('B37 B50 B52 B180 is refused as INVALID_FORMAT: %.60j', (authorization) => {
    expect(codeOf(() => findCredential({ authorization }))).toBe('INVALID_FORMAT');
  });

  it('has 8,448 characters at most, for a token of 8,192 and the spaces before it', () => {
    const longest = `a.${'b'.repeat(MAX_TOKEN_BYTES - 4)}.c`;
    const header = (spaces: number) => ({ authorization: `Bearer${' '.repeat(spaces)}${longest}` });
    expect(findCredential(header(250))).toEqual({ method: 'header', token: longest });
    expect(codeOf(() => findCredential(header(251)))).toBe('INVALID_FORMAT');
  });

  it.each(['', '   '])('B52 is no token when it is %j', (authorization) => {
    expect(codeOf(() => findCredential({ authorization }))).toBe('NO_TOKEN');
  });

  it.each(['opaque', 'a.b.c.d', 'a+b/c~d-e_f==', '7'])(
    'presents the opaque token %s where such are accepted',
    (token) => {
      const authorization = `Bearer ${token}`;
      expect(findCredential({ authorization }, undefined, BEARER_FORM)).toEqual({ method: 'header', token });
    },
  );

  it.each(['=', '=a', 'a=b', 'a,b', 'a"b', 'ä', '<a>', '%41'])('never presents %s, which is no token', (token) => {
    const authorization = `Bearer ${token}`;
    expect(codeOf(() => findCredential({ authorization }, undefined, BEARER_FORM))).toBe('INVALID_FORMAT');
  });

  it('B52 B179 may be left out, and then there is no credential', () => {
    expect(findCredential({})).toBeUndefined();
  });
});

describe('the sub-protocol', () => {
  it.each([
    ['jwt-auth and jwt.<token>', protocols('jwt-auth', `jwt.${base64url(TOKEN)}`)],
    ['jwt.<token> alone', protocols(`jwt.${base64url(TOKEN)}`)],
    ['jwt-auth.<token>', protocols(`jwt-auth.${base64url(TOKEN)}`)],
    ['the token behind other entries', protocols('chat', 'jwt-auth', `jwt.${base64url(TOKEN)}`)],
    ['a token with its scheme', protocols(`jwt.${base64url(`Bearer ${TOKEN}`)}`)],
    ['padding', protocols(`jwt.${base64url(TOKEN)}==`)],
    ['entries without a space between them', { 'sec-websocket-protocol': `jwt-auth,jwt.${base64url(TOKEN)}` }],
  ])('B2 B36 presents a token as %s', (_form, headers) => {
    expect(findCredential(headers)).toEqual({ method: 'subprotocol', token: TOKEN });
  });

  it('B237 is refused where the client sends the token under no name or a wrong one', () => {
    expect(codeOf(() => findCredential(protocols('jwt', TOKEN)))).toBe('found undefined');
    expect(codeOf(() => findCredential(protocols('jwt-auth', TOKEN)))).toBe('found undefined');
    expect(findCredential({ 'sec-websocket-protocol': '' })).toBeUndefined();
  });

  it.each([
    ['the token not encoded', TOKEN],
    ['characters that are no base64url', 'a+b/c'],
    ['text that is no token', base64url('hello')],
    ['bytes that are no text', Buffer.from([0xff, 0xfe, 0x80]).toString('base64url')],
    ['a token cut short', base64url(TOKEN).slice(0, -1)],
    ['10 KB', base64url('a'.repeat(10_240))],
  ])('B50 is refused as INVALID_FORMAT with %s', (_what, encoded) => {
    expect(codeOf(() => findCredential(protocols('jwt-auth', `jwt.${encoded}`)))).toBe('INVALID_FORMAT');
  });

  it.each(['jwt.', 'jwt-auth.', 'jwt.=='])('B52 is no token when the entry %s is empty', (entry) => {
    expect(codeOf(() => findCredential(protocols(entry)))).toBe('NO_TOKEN');
  });

  it('is given to the WebSocket server without padding, and otherwise as it was sent', () => {
    expect(unpaddedProtocols({})).toBeUndefined();
    expect(unpaddedProtocols(protocols('jwt-auth', 'jwt.QQ=='))).toBe('jwt-auth, jwt.QQ');
    expect(unpaddedProtocols(protocols("!#$%&'*+.^`|~-_Az09"))).toBe("!#$%&'*+.^`|~-_Az09");
    for (const header of ['', ',', 'a,,b', 'a b', 'a/b', '(a', 'a)', 'ä', 'a,a', 'a=,a', '==', 'a=b']) {
      expect(codeOf(() => unpaddedProtocols({ 'sec-websocket-protocol': header }))).toBe('INVALID_FORMAT');
    }
  });

  it('is refused above 128 entries or 12,288 characters', () => {
    const entries = (count: number) => protocols(...Array.from({ length: count }, (_, at) => `p${at}`));
    const long = (length: number) => ({ 'sec-websocket-protocol': 'p'.repeat(length) });
    expect(requestedProtocols(entries(128))).toHaveLength(128);
    expect(requestedProtocols(long(12_288))).toHaveLength(1);
    for (const headers of [entries(129), long(12_289)]) {
      expect(codeOf(() => requestedProtocols(headers))).toBe('INVALID_FORMAT');
    }
  });

  it('keeps the order of the entries', () => {
    expect(requestedProtocols({ 'sec-websocket-protocol': ' mcp , jwt-auth,, x ' })).toEqual(['mcp', 'jwt-auth', 'x']);
  });
});

describe('the token of Socket.IO and of a message', () => {
  it('is taken with and without its scheme', () => {
    expect(findCredential({}, TOKEN)).toEqual({ method: 'handshake', token: TOKEN });
    expect(findCredential({}, `Bearer ${TOKEN}`)).toEqual({ method: 'handshake', token: TOKEN });
    expect(messageCredential(TOKEN)).toEqual({ method: 'message', token: TOKEN });
    expect(messageCredential(`bearer ${TOKEN}`)).toEqual({ method: 'message', token: TOKEN });
  });

  it('may be left out of the handshake, but not out of the message', () => {
    expect(findCredential({}, undefined)).toBeUndefined();
    expect(findCredential({}, null)).toBeUndefined();
    expect(codeOf(() => messageCredential(undefined))).toBe('NO_TOKEN');
  });

  it('B52 is NO_TOKEN when it is empty', () => {
    expect(codeOf(() => findCredential({}, ''))).toBe('NO_TOKEN');
    expect(codeOf(() => messageCredential(''))).toBe('NO_TOKEN');
  });

  it.each([5, true, {}, [TOKEN], { token: TOKEN }])('is INVALID_FORMAT when it is %j', (token) => {
    expect(codeOf(() => findCredential({}, token))).toBe('INVALID_FORMAT');
  });
});

describe('the token of a service', () => {
  const names = { 'x-service-id': 'billing', 'x-user-context': 'service:billing' };
  const found = { method: 'service', token: TOKEN, serviceId: 'billing', context: 'service:billing' };

  it.each(['Service-Token', 'service-token'])('comes with who it speaks for, under the scheme %s', (scheme) => {
    expect(findCredential({ authorization: `${scheme} ${TOKEN}`, ...names })).toEqual(found);
  });

  it('in band may begin with its scheme', () => {
    for (const scheme of ['', 'Bearer ', 'Service-Token ']) {
      const presented = { token: `${scheme}${TOKEN}`, serviceId: 'billing', context: 'service:billing' };
      expect(serviceCredential(presented)).toEqual(found);
    }
  });

  it.each([
    ['no id', { 'x-user-context': 'service:billing' }],
    ['no context', { 'x-service-id': 'billing' }],
    ['an empty id', { ...names, 'x-service-id': '' }],
    ['an empty context', { ...names, 'x-user-context': '' }],
    ['neither', {}],
  ])('is INVALID_FORMAT with %s', (_what, headers) => {
    expect(codeOf(() => findCredential({ authorization: `Service-Token ${TOKEN}`, ...headers }))).toBe(
      'INVALID_FORMAT',
    );
  });

  it('is INVALID_FORMAT when it is no token, and NO_TOKEN when there is none', () => {
    for (const authorization of ['Service-Token', 'Service-Token hello', `Service-Token ${TOKEN} ${TOKEN}`]) {
      expect(codeOf(() => findCredential({ authorization, ...names }))).toBe('INVALID_FORMAT');
    }
    for (const token of [undefined, '']) {
      const presented = { token, serviceId: 'billing', context: 'service:billing' };
      expect(codeOf(() => serviceCredential(presented))).toBe('NO_TOKEN');
    }
  });

  it('is ignored without its scheme: the names alone authenticate no user', () => {
    expect(findCredential(names)).toBeUndefined();
    expect(findCredential({ authorization: `Bearer ${TOKEN}`, ...names })).toEqual({ method: 'header', token: TOKEN });
    for (const scheme of ['Basic', 'Token', 'Service']) {
      expect(codeOf(() => findCredential({ authorization: `${scheme} ${TOKEN}`, ...names }))).toBe('INVALID_FORMAT');
    }
  });

  it.each([
    ['billing', 'service:billing', 'found undefined'],
    ['billing', 'service:metering', 'USER_MISMATCH'],
    ['metering', 'service:billing', 'USER_MISMATCH'],
    ['service:billing', 'service:billing', 'USER_MISMATCH'],
    ['billing', 'billing', 'USER_MISMATCH'],
    ['billing', 'user_1', 'USER_MISMATCH'],
    ['Billing', 'service:Billing', 'USER_MISMATCH'],
    ['billing, billing', 'service:billing', 'USER_MISMATCH'],
    ['billing', undefined, 'INVALID_FORMAT'],
  ])('of billing whose bearer says to be %s for %s: %s', (serviceId, context, outcome) => {
    expect(codeOf(() => checkServiceNames({ serviceId, context }, 'service:billing'))).toBe(outcome);
  });
});

describe('the ticket of a URL', () => {
  const ticket = `${'Ab-_'.repeat(10)}xyw`;

  it('is 32 bytes as base64url; the same one twice is one', () => {
    expect(findTicket([])).toBeUndefined();
    expect(findTicket([ticket])).toBe(ticket);
    expect(findTicket([ticket, ticket])).toBe(ticket);
  });

  it.each([
    ['empty', [''], 'NO_TOKEN'],
    ['short', [ticket.slice(1)], 'INVALID_FORMAT'],
    ['long', [`${ticket}x`], 'INVALID_FORMAT'],
    ['with one spare bit', [`${ticket.slice(0, -1)}x`], 'INVALID_FORMAT'],
    ['with the other spare bit', [`${ticket.slice(0, -1)}y`], 'INVALID_FORMAT'],
    ['far too long', ['x'.repeat(100_000)], 'INVALID_FORMAT'],
    ['no base64url', [`${ticket.slice(1)}/`], 'INVALID_FORMAT'],
    ['followed by a line break', [`${ticket}\n`], 'INVALID_FORMAT'],
    ['a token', [TOKEN], 'INVALID_FORMAT'],
    ['not the only one', [ticket, `${ticket.slice(1)}x`], 'CONFLICTING_CREDENTIALS'],
  ])('that is %s is refused', (_what, parameters, code) => {
    expect(codeOf(() => findTicket(parameters))).toBe(code);
  });
});

describe('two credentials', () => {
  const authorization = `Bearer ${TOKEN}`;

  it('that agree are one', () => {
    const headers = { authorization, ...protocols('jwt-auth', `jwt.${base64url(TOKEN)}`) };
    expect(findCredential(headers, TOKEN)).toEqual({ method: 'header', token: TOKEN });
  });

  it('B52 that disagree are refused, whichever they are', () => {
    const service = {
      authorization: `Service-Token ${TOKEN}`,
      'x-service-id': 'billing',
      'x-user-context': 'service:billing',
    };
    const cases = [
      () => findCredential({ authorization, ...protocols(`jwt.${base64url(OTHER)}`) }),
      () => findCredential({ authorization }, OTHER),
      () => findCredential(protocols(`jwt.${base64url(TOKEN)}`, `jwt-auth.${base64url(OTHER)}`)),
      () => findCredential(protocols(`jwt.${base64url(TOKEN)}`), OTHER),
      () => findCredential({ ...service, ...protocols(`jwt.${base64url(OTHER)}`) }),
      () => findCredential(service, OTHER),
    ];
    for (const find of cases) expect(codeOf(find)).toBe('CONFLICTING_CREDENTIALS');
  });
});

describe('the sub-protocol that is answered', () => {
  it('is the preferred one of those that were offered', () => {
    expect(answeredProtocol(new Set(['jwt-auth', 'mcp']), ['mcp', 'jwt-auth'])).toBe('mcp');
    expect(answeredProtocol(new Set(['x', 'jwt-auth']), ['mcp', 'jwt-auth'])).toBe('jwt-auth');
  });

  it('is never the one that bears the token, nor one that was not offered', () => {
    expect(answeredProtocol(new Set([`jwt.${base64url(TOKEN)}`]), ['jwt-auth'])).toBe(false);
    expect(answeredProtocol(new Set([`jwt-auth.${base64url(TOKEN)}`]), ['mcp', 'jwt-auth'])).toBe(false);
    expect(answeredProtocol(new Set(), ['jwt-auth'])).toBe(false);
  });
});
