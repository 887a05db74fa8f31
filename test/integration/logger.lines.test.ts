import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';

const SOURCE = fileURLToPath(new URL('../../src/', import.meta.url));

/** Returns the output of a process that runs this code with a logger. The logger writes to standard output itself. */
function lines(code: string): Record<string, unknown>[] {
  const program = `
    import { createLogger } from '${SOURCE}lib/logger.ts';
    import { NO_TRACING } from '${SOURCE}lib/tracing.ts';
    const logger = createLogger('test', 'trace', () => NO_TRACING.logFields());
    ${code}
  `;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', program], {
    encoding: 'utf8',
  });
  if (stdout === '') throw new Error(stderr);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe('a line of the log', () => {
  it('has its own fields, and none of a line before it', () => {
    const [, second] = lines("logger.info({ run_id: 'run_1', user: 'one' }, 'first'); logger.info('second');");
    expect(Object.keys(second ?? {}).toSorted()).toEqual(['level', 'msg', 'name', 'pid', 'time']);
  });

  it('has no credential, in an object or in one within it', () => {
    const [line] = lines("logger.info({ token: 'secret', request: { authorization: 'secret', id: 1 } }, 'text');");
    expect(line).toMatchObject({ request: { id: 1 } });
    expect(JSON.stringify(line)).not.toContain('secret');
  });

  it('has of an error what is known to hold nothing of a user’s, and of its causes', () => {
    const code = `
      const cause = Object.assign(new Error('WRONGTYPE of a key'), { name: 'ReplyError', command: { args: ['secret'] } });
      logger.error({ err: new TypeError('failed', { cause }) }, 'text');
    `;
    const [line] = lines(code);
    expect(line).toMatchObject({
      err: { type: 'TypeError', message: 'failed', cause: { type: 'ReplyError', message: 'WRONGTYPE of a key' } },
    });
    expect(JSON.stringify(line)).not.toContain('secret');
  });
});
