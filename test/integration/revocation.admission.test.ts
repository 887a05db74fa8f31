import { beforeAll, describe, expect, it } from '@jest/globals';
import { Accounts } from '../../src/accounts/accounts.ts';
import { invalidateAccount } from '../../src/accounts/invalidations.ts';
import { Revocations } from '../../src/accounts/revocations.ts';
import type { ConnectionRegistry } from '../../src/cluster/connection-registry.ts';
import { Attachment, type AttachmentEvents } from '../../src/connections/attachment.ts';
import { LiveAttachments } from '../../src/connections/live-attachments.ts';
import { systemClock } from '../../src/lib/clock.ts';
import type { ErrorCode } from '../../src/protocol/errors.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { startAdminActions } from '../support/admin-actions.ts';
import { type Core, silentLogger, startCore, tokenDeps } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let core: Core;
beforeAll(async () => {
  core = await startCore();
});

/** A connection that records how its session ended. */
function eventsInto(ends: ErrorCode[]): AttachmentEvents {
  return {
    closed: false,
    details: { node: 'n', endpoint: '/test', opened_at: '' },
    deliver: () => undefined,
    onReplayGap: () => undefined,
    writable: async () => true,
    onTerminated: (code) => void ends.push(code),
    onError: (error) => expect(error).toBeUndefined(),
    onPlanChanged: () => undefined,
    onPublished: () => undefined,
    onTokenChanged: () => undefined,
  };
}

/** An attachment that Redis has admitted, while the reply is still in flight to the node. */
async function whileAdmitted() {
  const { registry, liveAttachments, tail } = await startAdminActions(core, core.plans);
  const answer = Promise.withResolvers<void>();
  const decided = Promise.withResolvers<void>();
  const slow = {
    admit: async (request) => {
      const admission = await registry.admit(request);
      decided.resolve();
      await answer.promise;
      return admission;
    },
    release: (userId, ids) => registry.release(userId, ids),
  } satisfies Pick<ConnectionRegistry, 'admit' | 'release'>;
  const userId = freshUserId();
  const identity = {
    userId,
    plan: 'pro',
    tokenId: `jti_${userId}`,
    sessionId: `sid_${userId}`,
    tokenIssuedAt: Date.now() - 1_000,
    tokenExpiresAt: Date.now() + 60_000,
    permissions: [],
  } as unknown as Identity;
  const ends: ErrorCode[] = [];
  const { plans, eventLog } = core;
  const deps = { registry: slow as unknown as ConnectionRegistry, liveAttachments, liveTail: tail, eventLog, plans };
  const session = new Attachment(
    { ...deps, ...tokenDeps(core), clock: systemClock, logger: silentLogger },
    { connectionId: `c_${userId}`, identity },
    eventsInto(ends),
  );
  closeAfter('test', () => session.detach());
  const joined = session.attach();
  await decided.promise;
  return { session, userId, identity, liveAttachments, ends, finish: () => joined, answer: () => answer.resolve() };
}

describe('what is decided while the answer to an admission is on its way', () => {
  it('B242 counts, not the older answer: the plan', async () => {
    const { session, userId, identity, liveAttachments, answer, finish } = await whileAdmitted();
    const applied: (string | undefined)[] = [];
    // A second attachment of the user on the node receives the same invalidation, which shows that the node has
    // processed it.
    liveAttachments.add({ identity, revoke: () => undefined, applyAccount: ({ plan }) => void applied.push(plan) });
    await new Accounts(core).setPlan(userId, 'free');
    await until(() => applied.includes('free'));
    answer();
    await finish();
    expect(session.identity.plan).toBe('free');
  });

  it.each([
    ['a block', 'USER_BLOCKED', (userId: string) => new Accounts(core).setBlocked(userId, true)],
    ['a revoked session', 'TOKEN_REVOKED', (userId: string) => new Revocations(core).revoke(`sid:sid_${userId}`)],
    ['a revoked token', 'TOKEN_REVOKED', (userId: string) => new Revocations(core).revoke(`jti:jti_${userId}`)],
    ['all tokens revoked', 'TOKEN_REVOKED', (userId: string) => new Accounts(core).revokeTokens(userId)],
  ] as const)('B244 ends the session that is about to begin: %s', async (_what, code, decide) => {
    const { userId, ends, answer, finish } = await whileAdmitted();
    await decide(userId);
    await until(() => ends.length > 0);
    answer();
    await finish();
    expect(ends[0]).toBe(code);
  });
});

describe('a session whose client has disconnected while messages wait', () => {
  it('B244 has no lease any more, and still ends with a revocation', async () => {
    const { session, userId, ends, answer, finish } = await whileAdmitted();
    answer();
    await finish();
    session.leave();
    const { registry } = await startAdminActions(core, core.plans);
    await until(async () => (await registry.list(userId)).total === 0);
    await new Revocations(core).revoke(`sid:sid_${userId}`);
    await until(() => ends.length > 0);
    expect(ends).toEqual(['TOKEN_REVOKED']);
  });
});

describe('a session during its admission', () => {
  it('B244 is refused when it was revoked after its token had been verified', async () => {
    const { liveAttachments, tail, registry } = await startAdminActions(core, core.plans);
    const userId = freshUserId();
    await new Revocations(core).revoke(`sid:sid_${userId}`);
    const identity = { userId, plan: 'pro', tokenId: 't', sessionId: `sid_${userId}`, tokenIssuedAt: 1 } as Identity;
    await until(() => liveAttachments.isRevoked(identity));
    const { plans, eventLog } = core;
    const deps = { registry, liveAttachments, liveTail: tail, eventLog, plans };
    const session = new Attachment(
      { ...deps, ...tokenDeps(core), clock: systemClock, logger: silentLogger },
      { connectionId: `c_${userId}`, identity },
      eventsInto([]),
    );
    await expect(session.attach()).rejects.toMatchObject({ code: 'TOKEN_REVOKED' });
    expect(await registry.list(userId)).toEqual({ total: 0, connections: [] });
    expect(liveAttachments.ofUser(userId)).toEqual([]);
  });

  it('B244 is refused by a node that has not received the revocation yet', async () => {
    const { tail, registry } = await startAdminActions(core, core.plans);
    const deaf = new LiveAttachments({ revoked: { has: () => false } });
    const userId = freshUserId();
    await new Revocations(core).revoke(`jti:jti_${userId}`);
    const identity = { userId, plan: 'pro', tokenId: `jti_${userId}`, tokenIssuedAt: 1 } as Identity;
    const deps = { registry, liveAttachments: deaf, liveTail: tail, eventLog: core.eventLog, plans: core.plans };
    const session = new Attachment(
      { ...deps, ...tokenDeps(core), clock: systemClock, logger: silentLogger },
      { connectionId: `c_${userId}`, identity },
      eventsInto([]),
    );
    await expect(session.attach()).rejects.toMatchObject({ code: 'TOKEN_REVOKED' });
    await until(async () => (await registry.list(userId)).total === 0);
    expect(deaf.ofUser(userId)).toEqual([]);
  });
});

describe('a session whose client brings a newer token', () => {
  it('B34 B128 leaves nothing behind on the node when it ends before that token has been verified', async () => {
    const { liveAttachments, tail, registry } = await startAdminActions(core, core.plans);
    const userId = freshUserId();
    const of = { userId, plan: 'pro', permissions: [], tokenIssuedAt: Date.now() - 1_000 };
    const identity = { ...of, tokenId: 'first', tokenExpiresAt: Date.now() + 60_000 } as unknown as Identity;
    const newer = { ...of, tokenId: 'second', tokenExpiresAt: Date.now() + 120_000 } as unknown as Identity;
    const verified = Promise.withResolvers<Identity>();
    const deps = { registry, liveAttachments, liveTail: tail, eventLog: core.eventLog, plans: core.plans };
    const authenticator = { renewal: () => verified.promise };
    const session = new Attachment(
      { ...deps, ...tokenDeps(core), authenticator, clock: systemClock, logger: silentLogger },
      { connectionId: `c_${userId}`, identity },
      eventsInto([]),
    );
    await session.attach();
    expect(liveAttachments.ofUser(userId)).toEqual([session]);
    const brought = session.acceptToken('second');
    session.detach();
    verified.resolve(newer);
    await brought;
    expect(liveAttachments.users()).not.toContain(userId);
  });
});

it('damaged data of one user ends the connections of that user, and delays no block of another', async () => {
  const own = await startCore();
  const { liveAttachments } = await startAdminActions(own, own.plans);
  const ended: string[] = [];
  const attachmentOf = (userId: string) => ({
    identity: { userId, plan: 'pro', tokenId: `jti_${userId}` } as unknown as Identity,
    revoke: () => void ended.push(`${userId} revoked`),
    applyAccount: ({ blocked }: { readonly blocked: boolean }) => void (blocked && ended.push(`${userId} blocked`)),
  });
  for (const userId of ['damaged', 'sound']) liveAttachments.add(attachmentOf(userId));
  await own.redis.set(own.keys.user('damaged').account, 'no hash');
  await invalidateAccount(own, 'damaged');
  // More than a page: a node whose first page fails would read no further.
  const revocations = new Revocations(own);
  await Promise.all(Array.from({ length: 600 }, (_, at) => revocations.revoke(`jti:${at}`)));
  await new Accounts(own).setBlocked('sound', true);
  await until(() => ended.includes('sound blocked'));
  expect(new Set(ended)).toEqual(new Set(['damaged revoked', 'sound blocked']));
});
