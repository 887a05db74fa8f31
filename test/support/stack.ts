import { afterAll, beforeAll } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { closeAfter } from './open-resources.ts';
import { type StackAddresses, type StackOptions, StackProcesses } from './stack-processes.ts';

export type { StackAddresses, StackProcess, StackProcesses } from './stack-processes.ts';

/**
 * The processes that all tests share: three gateways, a worker, the auth service, Redis. A test must not stop or
 * reconfigure them; a test that needs to starts a private stack.
 */
export function stack(): StackAddresses {
  return JSON.parse(fromSetup('TOLLGATE_TEST_STACK'));
}

/** The Redis server of the shared stack; each test uses its own key prefix. */
export function testRedisUrl(): string {
  return fromSetup('TEST_REDIS_URL');
}

/** A single Redis server, also if the tests' Redis is a cluster, for a test that puts a proxy in between. */
export async function oneRedisUrl(): Promise<string> {
  if (!testRedisUrl().startsWith('redis+cluster:')) return testRedisUrl();
  const server = await startRedisServer();
  closeAfter('file', () => server.stop());
  return server.url;
}

export interface PrivateStackOptions extends Omit<StackOptions, 'redisUrl'> {
  /** `shared` (default): the tests' Redis under another key prefix. `private`: a server that the test may stop. */
  readonly redis?: 'shared' | 'private';
}

/** Starts a private stack, closed when the file ends at the latest. It starts within about two seconds. */
export async function startStack({ redis = 'shared', ...options }: PrivateStackOptions = {}): Promise<StackProcesses> {
  let redisUrl = testRedisUrl();
  if (redis === 'private') {
    const server = await startRedisServer();
    closeAfter('file', () => server.stop());
    redisUrl = server.url;
  }
  const processes = await StackProcesses.start({ ...options, redisUrl });
  closeAfter('file', () => processes.close());
  return processes;
}

/** Like `startStack`, for a whole `describe`: started before its first test, closed after its last. */
export function useStack(options: PrivateStackOptions = {}): () => StackProcesses {
  let processes: StackProcesses | undefined;
  beforeAll(async () => {
    processes = await startStack(options);
  });
  afterAll(() => processes?.close());
  return () => {
    if (!processes) throw new Error('the stack is there inside tests and hooks only');
    return processes;
  };
}

function fromSetup(variable: string): string {
  const value = process.env[variable];
  if (value === undefined) throw new Error(`${variable} is not set: run the tests with npm test`);
  return value;
}
