import { randomBytes } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import { startGateway } from '../../src/compose/gateway.ts';
import { loadConfig } from '../../src/config.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { openClient } from '../support/clients.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

/** A wall clock that can be set; timers keep running as before. */
function settableClock(): { readonly clock: Clock; readonly set: (byMs: number) => void } {
  let offset = 0;
  return {
    clock: { ...systemClock, now: () => systemClock.now() + offset },
    set: (byMs) => {
      offset += byMs;
    },
  };
}

describe('a node whose clock is set', () => {
  it.each([
    ['forward', 600_000],
    ['back', -600_000],
  ])('%s by ten minutes closes no connection as silent, and heartbeats continue', async (_way, byMs) => {
    const { clock, set } = settableClock();
    const { authUrl, redisUrl, secrets } = stack();
    const config = loadConfig({
      ENVIRONMENT: 'test',
      HOST: '127.0.0.1',
      PORT: '0',
      AUTH_SERVICE_URL: authUrl,
      REDIS_URL: redisUrl,
      REDIS_KEY_PREFIX: `s${randomBytes(6).toString('hex')}`,
      JWT_SECRET_KEY: secrets.jwt,
      SERVICE_SECRET: secrets.service,
      HEARTBEAT_INTERVAL_SECONDS: '1',
      CONNECTION_TIMEOUT_SECONDS: '60',
      DRAIN_SECONDS: '0',
      LOG_LEVEL: 'silent',
    });
    const gateway = await startGateway(config, { logger: silentLogger, clock });
    closeAfter('test', () => gateway.close());
    const { token } = mintToken({}, { expiresInSeconds: 7_200 });
    const client = await openClient({ url: `http://127.0.0.1:${gateway.port}`, token });
    await client.waitFor('heartbeat');
    // The reply shows that no earlier message is in flight.
    client.send('ping');
    await client.waitFor('pong');
    set(byMs);
    const from = client.mark();
    const wasSet = ({ fields }: { readonly fields: Readonly<Record<string, unknown>> }) =>
      Math.abs(Date.parse(String(fields.timestamp)) - Date.now() - byMs) < 60_000;
    await client.waitFor((event) => event.type === 'heartbeat' && wasSet(event), { from, timeoutMs: 8_000 });
    client.send('ping');
    await client.waitFor('pong', { from });
    expect(client.events.filter(({ type }) => type === 'error')).toEqual([]);
  });
});
