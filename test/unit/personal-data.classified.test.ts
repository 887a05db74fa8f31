import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { Keys } from '../../src/redis/keys.ts';
import { plainKeys, SHARED_KEYS, USER_KEYS } from '../../src/redis/personal-data.ts';
import { UserKeys } from '../../src/redis/user-keys.ts';

/** Returns the key builders of a class, including those added later. */
function buildersOf(prototype: object, without: readonly string[] = []): string[] {
  const names = Object.getOwnPropertyNames(prototype);
  return names.filter((name) => name !== 'constructor' && !without.includes(name)).toSorted();
}

/** Returns, per row of the table, the names of its first cell and the treatment of its last. */
function documented(): Map<string, string> {
  const page = readFileSync(join(PROJECT_ROOT, 'docs/security.md'), 'utf8');
  const heading = '\n## Personal data: where it is, for how long, how it is exported and erased\n';
  const section = page.split(heading)[1]?.split(/\n## /, 1)[0] ?? '';
  const rows = [...section.matchAll(/^\| (`[^|]+) \|.*\| (\w+) \|$/gm)];
  return new Map(
    rows.flatMap(([, names = '', treatment = '']) => {
      return [...names.matchAll(/`(\w+)`/g)].map(([, name = '']) => [name, treatment] as const);
    }),
  );
}

describe('every key of Redis', () => {
  it('is classified by what an erasure does with it', () => {
    expect(Object.keys(USER_KEYS).toSorted()).toEqual(buildersOf(UserKeys.prototype));
    expect(Object.keys(SHARED_KEYS).toSorted()).toEqual(buildersOf(Keys.prototype, ['user']));
  });

  it('stands in docs/security.md with that, and no other does', () => {
    const all = { ...USER_KEYS, ...SHARED_KEYS };
    expect(Object.fromEntries(documented())).toEqual(all);
  });

  it('of a user that needs no id is among those that are deleted, and is this user’s alone', () => {
    const keys = new Keys('t');
    const own = plainKeys(keys.user('user_1'));
    const names = Object.getOwnPropertyDescriptors(UserKeys.prototype) as Record<string, PropertyDescriptor>;
    const getters = Object.keys(names).filter((name) => names[name]?.get !== undefined);
    const kept = getters.filter((name) => !own.some(([one]) => one === name));
    expect(kept.toSorted()).toEqual([
      'activeCalls',
      'activeRuns',
      'channel',
      'outbox',
      'runControl',
      'tokenDue',
      'unsuccessfulRuns',
    ]);
    for (const [, key] of own) expect(key).toContain(':user_1:');
  });
});
