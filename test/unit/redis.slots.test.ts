import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { Keys, PARTITIONS, partitionOf } from '../../src/redis/keys.ts';
import { slotOf } from '../../src/redis/slots.ts';
import { isUserChannel, UserKeys } from '../../src/redis/user-keys.ts';

/** Returns every key of a user, including those of builders added later. */
function allKeysOf(keys: Keys, userId: string, id: string): string[] {
  const own = keys.user(userId);
  const members = Object.entries(Object.getOwnPropertyDescriptors(UserKeys.prototype));
  const named = members.flatMap(([name, { get, value }]) => {
    if (name === 'constructor') return [];
    return [get ? String(get.call(own)) : String(value.call(own, id))];
  });
  const partition = partitionOf(userId);
  return [
    ...named,
    keys.outbox(partition),
    keys.activeRuns(partition),
    keys.unsuccessfulRuns(partition),
    keys.activeCalls(partition),
    keys.tokenDue(partition),
  ];
}

const anything = fc.string({ unit: 'binary', minLength: 1, maxLength: 80 });

describe('the keys of one script', () => {
  it('are in one slot, whatever the user and the ids are called', () => {
    const prefixes = fc.stringMatching(/^[\w-]{1,32}$/);
    fc.assert(
      fc.property(prefixes, anything, anything, (prefix, userId, id) => {
        const all = allKeysOf(new Keys(prefix), userId, id);
        expect(all.length).toBeGreaterThan(25);
        expect(new Set(all.map(slotOf)).size).toBe(1);
      }),
      { numRuns: 500 },
    );
  });

  it('of the ledger, of the nodes and of the announcements are in one slot each', () => {
    fc.assert(
      fc.property(anything, (id) => {
        const keys = new Keys('tollgate');
        const { ledger, ledgerState, corrections, corrected, openWindows, consumers } = keys;
        const ofLedger = [ledger, ledgerState, corrections, corrected, openWindows, consumers];
        ofLedger.push(keys.correction(id), keys.tally(id), keys.window(id));
        expect(new Set(ofLedger.map(slotOf)).size).toBe(1);
        expect(slotOf(keys.nodes)).toBe(slotOf(keys.nodeDetails));
        expect(slotOf(keys.invalidations)).toBe(slotOf(keys.revocations));
        expect(slotOf(keys.invalidations)).toBe(slotOf(keys.invalidationChannel));
        expect(slotOf(keys.auth(id))).toBe(slotOf(keys.auth('another')));
        expect(slotOf(`${keys.queues}:${id}`)).toBe(slotOf(`${keys.queues}:another`));
      }),
    );
  });

  it('match the channels that scripts publish to, and user channels are distinguishable', () => {
    fc.assert(
      fc.property(anything, (userId) => {
        const keys = new Keys('tollgate');
        const user = keys.user(userId);
        const partition = partitionOf(userId);
        expect(keys.runControls[partition]).toBe(user.runControl);
        expect(keys.nodeChannels('node')[partition]).toBe(user.nodeChannel('node'));
        expect(isUserChannel(user.channel)).toBe(true);
        for (const other of [keys.invalidationChannel, user.runControl, user.nodeChannel('n')]) {
          expect(isUserChannel(other)).toBe(false);
        }
      }),
    );
    expect(new Keys('t').runControls).toHaveLength(PARTITIONS);
  });
});
