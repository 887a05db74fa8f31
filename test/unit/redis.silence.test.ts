import { expect, it } from '@jest/globals';
import { type ConnectionRole, clusterOptions, redisOptions, redisTarget } from '../../src/redis/options.ts';

const ROLES: readonly ConnectionRole[] = ['commands', 'subscriber', 'blocking'];

it.each(ROLES)('a connection for %s notices within 15 s that its peer has disappeared silently', (role) => {
  const server = redisOptions(redisTarget('redis://127.0.0.1:1'), role);
  const cluster = clusterOptions(redisTarget('redis+cluster://127.0.0.1:1'), role);
  for (const { socketTimeout } of [server, cluster.redisOptions ?? {}]) {
    expect(socketTimeout).toBeGreaterThan(0);
    expect(socketTimeout).toBeLessThanOrEqual(15_000);
  }
});
