import { expect, it } from '@jest/globals';
import { publicError, TollgateError } from '../../src/protocol/errors.ts';
import { integer, text } from '../../src/redis/replies.ts';
import { LuaScript } from '../../src/redis/scripts.ts';
import { type Core, startCore } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';

async function revokeBefore(core: Core, shape: typeof integer | typeof text): Promise<unknown> {
  const script = LuaScript.load<unknown>('revokeBefore-1', shape);
  return script.run(core.redis, [core.keys.user(freshUserId()).account], [5]).catch((error: unknown) => error);
}

it('a script reply of another shape is INTERNAL_ERROR, and its cause names the script', async () => {
  const core = await startCore();
  expect(await revokeBefore(core, integer)).toBe(5);
  const error = await revokeBefore(core, text);
  expect(error).toBeInstanceOf(TollgateError);
  if (!(error instanceof TollgateError)) return;
  expect(publicError(error)).toEqual(publicError(new TollgateError('INTERNAL_ERROR')));
  expect(String(error.cause)).toMatch(/the script revokeBefore:[0-9a-f]{8} returned number, which is not its reply/);
});
