import { describe, expect, it } from '@jest/globals';
import { Accounts } from '../../src/accounts/accounts.ts';
import type { LiveAttachment } from '../../src/connections/live-attachments.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { startAdminActions } from '../support/admin-actions.ts';
import { catalogues, planRow } from '../support/catalogues.ts';
import { startCore } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const NODES = 3;
const { plans: PLANS } = catalogues(
  {
    plans: {
      free: planRow({ rank: 0, connections: 2 }),
      wide: planRow({ rank: 1, connections: 7 }),
    },
  },
  'file',
);

describe('a plan with a lower cap', () => {
  it('B244 closes the oldest connections of three nodes, exactly as many as are too many', async () => {
    const core = await startCore();
    const nodes = await Promise.all(Array.from({ length: NODES }, () => startAdminActions(core, PLANS)));
    const userId = freshUserId();
    const accounts = new Accounts(core);
    await accounts.setPlan(userId, 'wide');
    const evicted: unknown[] = [];
    const plans: string[] = [];
    const [first] = nodes;
    await first?.tail.listen(userId, {
      onEntry: () => undefined,
      onGap: () => undefined,
      onControl: ({ control, connection_ids: ids }) => {
        if (control === 'evict' && Array.isArray(ids)) evicted.push(...ids);
      },
    });
    for (let at = 0; at < 7; at++) {
      const node = nodes[at % NODES];
      const identity = { userId, plan: 'wide', tokenId: `jti_${at}`, sessionId: undefined } as Identity;
      const session: LiveAttachment = {
        identity,
        revoke: () => undefined,
        applyAccount: ({ plan = '' }) => void plans.push(plan),
      };
      node?.liveAttachments.add(session);
      const details = { node: `n${at % NODES}`, endpoint: '/test', opened_at: '' };
      const tokenIssuedAt = Date.now();
      await node?.registry.admit({ userId, connectionId: `c${at}`, plan: 'wide', tokenIssuedAt, details });
    }
    expect(evicted).toEqual([]);

    await accounts.setPlan(userId, 'free');
    // Three nodes have requested it, and all attachments have received the change; one of the three closed the excess.
    await until(() => plans.filter((plan) => plan === 'free').length === 7);
    await until(() => evicted.length >= 5);
    expect(evicted).toEqual(['c0', 'c1', 'c2', 'c3', 'c4']);
    const { total, connections } = (await first?.registry.list(userId)) ?? {};
    expect(total).toBe(2);
    expect(connections?.map(({ connection_id }) => connection_id).toSorted()).toEqual(['c5', 'c6']);

    // An evicted connection with its old order is not readmitted by mistake: the renewal reports the eviction.
    const [renewal] = (await first?.registry.renew(new Map([[userId, ['c0', 'c5']]]))) ?? [];
    expect([...(renewal?.leases ?? [])]).toEqual([
      ['c0', 'evicted'],
      ['c5', 'renewed'],
    ]);
  });
});
