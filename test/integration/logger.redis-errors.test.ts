import { expect, it } from '@jest/globals';
import { ManagedProcess } from '../../scripts/lib/processes.ts';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { closeAfter } from '../support/open-resources.ts';

it('a log line about an error of Redis has neither the password nor the arguments of the command', async () => {
  const server = await startRedisServer();
  closeAfter('test', () => server.stop());
  const script = `
    import { Redis } from 'ioredis';
    import { createLogger } from './src/lib/logger.ts';
    const logger = createLogger('test', 'info');
    const redis = new Redis(${server.port}, { retryStrategy: () => null });
    redis.on('error', () => {});
    for (const work of [redis.auth('someone', 'hunter2'), redis.hset('a', 'b')]) {
      await work.catch((err) => logger.warn({ err }, 'refused'));
    }
    redis.disconnect();
  `;
  const args = ['--input-type=module', '--eval', script];
  const child = new ManagedProcess({ name: 'logger', command: process.execPath, args, env: process.env });
  expect(await child.exited).toMatchObject({ code: 0 });
  const lines = child.output.split('\n').map((line) => JSON.parse(line) as { err: { message: string } });
  expect(lines.map(({ err }) => err.message)).toEqual([
    expect.stringContaining('WRONGPASS'),
    expect.stringContaining('wrong number of arguments'),
  ]);
  expect(child.output).not.toContain('hunter2');
  expect(child.output).not.toContain('args');
});
