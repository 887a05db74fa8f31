import { connect } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { ask } from '../support/cpu/carriers.ts';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket, rawFrame } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const BOUND = 3;
const ENGINE = '/socket.io/?EIO=4&transport=websocket';
const FORGED = `${Buffer.from('{"alg":"HS256"}').toString('base64url')}.${Buffer.from('{}').toString('base64url')}.c2ln`;

let lastAddress = 0;
/** RFC 5737. */
function freshAddress(): string {
  lastAddress += 1;
  return `192.0.2.${lastAddress}`;
}

type Headers = Readonly<Record<string, string>>;
interface Attempt {
  readonly url: string;
  readonly headers: Headers;
}

/** An upgrade whose head suffices for a refusal. */
function upgrade({ url, headers }: Attempt, path: string): Promise<unknown> {
  return openRawSocket({ url, path, headers }).answer;
}

/** A connection to /ws that its frames bring to an end. */
async function sendTo({ url, headers }: Attempt, path: string, ...frames: Buffer[]): Promise<unknown> {
  const raw = openRawSocket({ url, path, headers });
  await until(() => raw.frames.length > 0);
  for (const frame of frames) raw.write(frame);
  return raw.ended;
}

const COUNTED: Readonly<Record<string, (attempt: Attempt) => Promise<unknown>>> = {
  'an upgrade at an unknown path': (attempt) => upgrade(attempt, '/nothing'),
  'an upgrade with half a place to resume from': (attempt) => {
    return openRawSocket({ ...attempt, path: '/ws?after=1' }).ended;
  },
  'an Engine.IO request of another protocol': ({ url, headers }) => {
    return ask({ url, path: '/socket.io/?EIO=3&transport=polling', headers });
  },
  'an Engine.IO request of an unknown transport': ({ url, headers }) => {
    return ask({ url, path: '/socket.io/?EIO=4&transport=telepathy', headers });
  },
  'twenty frames that are no JSON': (attempt) => {
    return sendTo(attempt, '/ws', ...Array.from({ length: 20 }, () => rawFrame('{')));
  },
  'a frame with reserved bits': (attempt) => sendTo(attempt, '/ws', rawFrame('{}', { reserved: 7 })),
  'a frame above 64 KiB': (attempt) => sendTo(attempt, '/ws', rawFrame('', { claimedLength: 70_000 })),
  'a bad token at a route of usage': ({ url, headers }) => {
    return ask({ url, path: '/v1/usage/records', headers: { ...headers, authorization: `Bearer ${FORGED}` } });
  },
  'a bad token at a route of operators': ({ url, headers }) => {
    return ask({ url, path: '/v1/nodes', headers: { ...headers, authorization: `Bearer ${FORGED}` } });
  },
  'a bad token at the reload of catalogues': ({ url, headers }) => {
    const authorization = `Bearer ${FORGED}`;
    return ask({ url, path: '/v1/config/reload', method: 'POST', headers: { ...headers, authorization } });
  },
  'a bad token at MCP': ({ url, headers }) => {
    return ask({ url, path: '/mcp', method: 'POST', headers: { ...headers, authorization: `Bearer ${FORGED}` } });
  },
  'a bad token where tickets are sold': ({ url, headers }) => {
    return ask({
      url,
      path: '/v1/tickets',
      method: 'POST',
      headers: { ...headers, authorization: `Bearer ${FORGED}` },
    });
  },
};

const NOT_COUNTED: Readonly<Record<string, (attempt: Attempt) => Promise<unknown>>> = {
  'an origin that is not allowed, at a path that there is not': ({ url, headers }) => {
    return upgrade({ url, headers: { ...headers, origin: 'https://evil.example' } }, '/nothing');
  },
  'a session of Engine.IO that the node does not know': ({ url, headers }) => {
    return ask({ url, path: `${ENGINE.replace('websocket', 'polling')}&sid=unknown`, headers });
  },
  'a service request without a token': ({ url, headers }) => ask({ url, path: '/v1/usage/records', headers }),
  'a path that there is not': ({ url, headers }) => ask({ url, path: '/nothing', headers }),
};

describe('what is refused early, behind a proxy that is trusted', () => {
  const stack = useStack({
    workers: 0,
    env: { AUTH_FAILURES_PER_MINUTE: String(BOUND), TRUSTED_PROXY_HOPS: '1' },
  });
  const attemptFrom = (address: string): Attempt => {
    return { url: nodeUrl(0, stack().addresses), headers: { 'x-forwarded-for': address } };
  };
  const stranger = async ({ url, headers }: Attempt) =>
    (await openRawSocket({ url, path: '/ws', headers }).answer).status;

  it.each(Object.entries(COUNTED))('counts for its address: %s', async (_what, send) => {
    const attempt = attemptFrom(freshAddress());
    for (let i = 0; i < BOUND - 1; i++) await send(attempt);
    expect(await stranger(attempt)).toBe(101);
    await send(attempt);
    expect(await until(async () => (await stranger(attempt)) === 429)).toBe(true);
    expect(await stranger(attemptFrom(freshAddress()))).toBe(101);
  });

  it.each(Object.entries(NOT_COUNTED))('does not count for its address: %s', async (_what, send) => {
    const attempt = attemptFrom(freshAddress());
    for (let i = 0; i < BOUND + 2; i++) await send(attempt);
    expect(await stranger(attempt)).toBe(101);
  });

  it.each(['/v1/usage/records', '/v1/nodes'])(
    'answers bad tokens at %s with 429 and Retry-After above the bound, and good ones as ever',
    async (path) => {
      const { url, headers } = attemptFrom(freshAddress());
      const good = await serviceToken('admin usage:read', { stack: stack().addresses });
      const status = async (token: string) => {
        return (await fetch(new URL(path, url), { headers: { ...headers, authorization: `Bearer ${token}` } })).status;
      };
      const statuses = [];
      for (let i = 0; i < BOUND + 2; i++) statuses.push(await status(FORGED));
      expect(statuses).toEqual([401, 401, 401, 429, 429]);
      const limited = await fetch(new URL(path, url), { headers: { ...headers, authorization: `Bearer ${FORGED}` } });
      expect(Number(limited.headers.get('retry-after'))).toBeGreaterThan(30);
      expect(await limited.json()).toMatchObject({ error: { code: 'AUTH_RATE_LIMITED', retryable: true } });
      expect(await status(good)).toBe(200);
      // A user's token is no service token.
      expect(await status(mintToken({}, { stack: stack().addresses }).token)).toBe(429);
    },
  );
});

describe('bytes that are no HTTP', () => {
  const stack = useStack({ workers: 0, env: { AUTH_FAILURES_PER_MINUTE: String(BOUND) } });

  it('count for the address of the socket where no proxy is trusted', async () => {
    const url = nodeUrl(0, stack().addresses);
    for (let i = 0; i < BOUND; i++) {
      await new Promise((resolve) => {
        const socket = connect(Number(new URL(url).port), '127.0.0.1');
        socket.on('close', resolve).resume().write('NONSENSE\r\n\r\n');
      });
    }
    expect((await openRawSocket({ url, path: '/ws' }).answer).status).toBe(429);
    const { token } = mintToken({}, { stack: stack().addresses });
    const raw = openRawSocket({ url, path: '/ws', headers: { Authorization: `Bearer ${token}` } });
    expect((await raw.answer).status).toBe(101);
  });
});
