import { describe, expect, it } from '@jest/globals';
import { nodeUrl } from '../support/nodes.ts';
import { openRawSocket } from '../support/raw-socket.ts';
import { useStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

const BOUND = 3;
const PATHS = ['/ws', '/ws/secure', '/ws/user_1', '/ws/mcp'];

let lastAddress = 0;
/** An address that no other test uses for failures (RFC 5737). */
function freshAddress(): string {
  lastAddress += 1;
  return `198.51.100.${lastAddress}`;
}

describe('A8 Sec-WebSocket-Protocol of a form that no client sends', () => {
  const stack = useStack({
    workers: 0,
    env: { AUTH_FAILURES_PER_MINUTE: String(BOUND), TRUSTED_PROXY_HOPS: '1' },
  });

  /** Returns the HTTP status and error code of the response; no code if the upgrade was accepted. */
  async function offer(path: string, protocols: string, forwarded: string): Promise<[number, string?]> {
    const headers = { 'Sec-WebSocket-Protocol': protocols, 'X-Forwarded-For': forwarded };
    const raw = openRawSocket({ url: nodeUrl(0, stack().addresses), path, headers });
    const { status } = await raw.answer;
    if (status !== 101) return [status, JSON.parse(`${await raw.ended}`).error.code];
    raw.socket.destroy();
    return [status];
  }

  it.each([
    ['padding that another character follows', `${'='.repeat(1_500)}x`],
    ['a token behind padding', `jwt-auth, jwt.${'='.repeat(1_500)}x`],
    ['padding alone', '='.repeat(1_500)],
    ['spaces within an entry', `a${' '.repeat(1_500)}b`],
    ['padding and spaces', `${'= '.repeat(750)}x`],
    ['commas alone', ','.repeat(100)],
    ['too many entries', Array.from({ length: 129 }, (_, at) => `p${at}`).join(',')],
    ['too many characters', 'a'.repeat(12_289)],
    ['an entry twice', 'jwt-auth, jwt-auth'],
  ])('is 400 FORMAT_ERROR on every endpoint: %s', async (_what, protocols) => {
    for (const path of PATHS) expect(await offer(path, protocols, freshAddress())).toEqual([400, 'FORMAT_ERROR']);
  });

  it('counts as a failure of its address, which gets 429 above the bound', async () => {
    const address = freshAddress();
    const outcomes = [];
    for (let i = 0; i < BOUND + 2; i++) outcomes.push(await offer('/ws', `${'='.repeat(1_500)}x`, address));
    const malformed = [400, 'FORMAT_ERROR'];
    const closed = [429, 'AUTH_RATE_LIMITED'];
    expect(outcomes).toEqual([malformed, malformed, malformed, closed, closed]);
    expect(await offer('/ws', 'jwt-auth', address)).toEqual(closed);
    expect(await offer('/ws', 'jwt-auth', freshAddress())).toEqual([101]);
  });

  it('does not keep a good token out: padded, behind 120 other entries', async () => {
    const { token } = mintToken({}, { stack: stack().addresses });
    const entry = `jwt.${Buffer.from(token).toString('base64url')}==`;
    const others = Array.from({ length: 120 }, (_, at) => `p${at}`).join(', ');
    expect(await offer('/ws/secure', `${others}, jwt-auth, ${entry}`, freshAddress())).toEqual([101]);
  });
});
