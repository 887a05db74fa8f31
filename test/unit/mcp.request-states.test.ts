import { describe, expect, it } from '@jest/globals';
import { TokenSeal } from '../../src/auth/token-refresh/token-seal.ts';
import { RequestStates } from '../../src/mcp/request-states.ts';
import { ManualClock } from '../support/manual-clock.ts';

const KEPT_MS = 60_000;
const SECRET = 'a secret that all nodes of one installation share';
const REQUEST = {
  userId: 'u1',
  method: 'tools/call',
  name: 'book',
  args: { city: 'Bern', days: { from: 1, to: 2 } },
  idempotencyKey: undefined,
} as const;
const STATE = { server: 'remote', callId: 'call_1', asked: 2, state: 'what the "server" said: ünïcode' };

function statesOf(clock = new ManualClock(), secret = SECRET): RequestStates {
  return new RequestStates({ clock }, { secret, keptMs: KEPT_MS });
}

const refused = (open: () => unknown) =>
  expect(open).toThrow(expect.objectContaining({ code: 'REQUEST_STATE_INVALID' }));

describe('a request state', () => {
  it('is opened by every node of the deployment, for the same request in any order of arguments', () => {
    const sealed = statesOf().seal(REQUEST, STATE);
    const reordered = { ...REQUEST, args: { days: { to: 2, from: 1 }, city: 'Bern' } };
    expect(statesOf().open(REQUEST, sealed)).toEqual(STATE);
    expect(statesOf().open(reordered, sealed)).toEqual(STATE);
    const without = statesOf().seal(REQUEST, { ...STATE, state: undefined });
    expect(statesOf().open(REQUEST, without).state).toBeUndefined();
  });

  it('says nothing of what is in it, and is never the same twice', () => {
    const states = statesOf();
    const sealed = states.seal(REQUEST, STATE);
    expect(Buffer.from(sealed, 'base64').toString('latin1')).not.toContain('call_1');
    expect(states.seal(REQUEST, STATE)).not.toBe(sealed);
  });

  it.each([
    ['another user', { userId: 'u2' }],
    ['another method', { method: 'prompts/get' }],
    ['another tool', { name: 'cancel' }],
    ['other arguments', { args: { city: 'Bern', days: { from: 1, to: 3 } } }],
    ['an idempotency key', { idempotencyKey: 'k' }],
  ] as const)('is of no use for %s', (_what, change) => {
    const states = statesOf();
    const sealed = states.seal(REQUEST, STATE);
    refused(() => states.open({ ...REQUEST, ...change }, sealed));
  });

  it('expires', () => {
    const clock = new ManualClock();
    const states = statesOf(clock);
    const sealed = states.seal(REQUEST, STATE);
    clock.advance(KEPT_MS - 1);
    expect(states.open(REQUEST, sealed)).toEqual(STATE);
    clock.advance(1);
    refused(() => states.open(REQUEST, sealed));
  });

  it('cannot be made without the secret, changed, lengthened or made up', () => {
    const states = statesOf();
    const sealed = states.seal(REQUEST, STATE);
    refused(() => states.open(REQUEST, statesOf(undefined, `${SECRET}.`).seal(REQUEST, STATE)));
    const bytes = Buffer.from(sealed, 'base64');
    for (let at = 0; at < bytes.length; at += 5) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      refused(() => states.open(REQUEST, changed.toString('base64')));
    }
    // Sealed with the same secret for another purpose.
    refused(() => states.open(REQUEST, new TokenSeal(SECRET).seal('token')));
    const others = [`${sealed}-TAMPERED`, `${sealed}=`, ` ${sealed}`, sealed.replace(/.$/, ''), '', 'x', '{}'];
    for (const other of others) refused(() => states.open(REQUEST, other));
  });
});
