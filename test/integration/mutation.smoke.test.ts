import { describe, expect, it } from '@jest/globals';
import { withChange } from '../../mutation/lib/change.ts';
import { mutantsOf, readSource } from '../../mutation/lib/mutants.ts';
import { TestProcess } from '../../mutation/lib/test-process.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';

const CAPS = 'src/redis/lua/include/caps.lua';
const TEST = 'test/integration/registry.caps.test.ts';
const TIMEOUT_MS = 20_000;

describe('npm run mutation', () => {
  it('reports a mutant as killed if a test fails with it, and only then', async () => {
    const process = new TestProcess({ ...globalThis.process.env, TEST_REDIS_URL: testRedisUrl() });
    closeAfter('test', () => process.close());
    expect(await process.run({ test: TEST, mutant: undefined }, TIMEOUT_MS)).toEqual({});
    const source = readSource(CAPS);
    const mutants = await mutantsOf(CAPS);
    const killed = [
      "redis.call('ZREM', keys.leases, unpack(ids)) → ",
      '<= → >',
      '~= → ==',
      'return a[1] < b[1] → ',
    ].map((change) => mutants.find(({ original, replacement }) => `${original} → ${replacement}` === change));
    for (const mutant of killed) {
      if (!mutant) throw new Error(`${CAPS} has changed: choose other mutants`);
      const result = await process.run(
        { test: TEST, mutant: { file: CAPS, source: withChange(source, mutant) } },
        TIMEOUT_MS,
      );
      expect(result).toMatchObject({ failure: expect.any(String) });
    }
  });
});
