import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { startGateway } from '../../src/compose/gateway.ts';
import { loadConfig } from '../../src/config.ts';
import { silentLogger } from '../support/core.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { scrape, total } from '../support/metrics.ts';
import { closeAfter } from '../support/open-resources.ts';
import { openRawSocket, type RawSocket } from '../support/raw-socket.ts';
import { stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const POLLING = '/socket.io/?EIO=4&transport=polling';
/** Longer than output may stall, plus the tick that detects it. */
const STALL_MS = 12_000;
/** Answers of 5 kB each: a round is a tenth of the limit of buffered output. */
const REQUESTS_PER_ROUND = 60;
/** The kernel buffers several MB before anything remains in the process. */
const MAX_ROUNDS = 60;

let clock: ManualClock;
let url: string;

beforeAll(async () => {
  clock = new ManualClock();
  const { authUrl, redisUrl, secrets } = stack();
  const config = loadConfig({
    ENVIRONMENT: 'test',
    HOST: '127.0.0.1',
    PORT: '0',
    AUTH_SERVICE_URL: authUrl,
    REDIS_URL: redisUrl,
    REDIS_KEY_PREFIX: `r${randomBytes(6).toString('hex')}`,
    JWT_SECRET_KEY: secrets.jwt,
    SERVICE_SECRET: secrets.service,
    MESSAGE_RATE_PER_MINUTE: '1000000',
    CONNECTION_TIMEOUT_SECONDS: '86400',
    DRAIN_SECONDS: '0',
    LOG_LEVEL: 'silent',
  });
  const gateway = await startGateway(config, { logger: silentLogger, clock });
  closeAfter('file', async () => {
    // Waits during the gateway's shutdown follow the manual clock.
    const moving = setInterval(() => clock.advance(1_000), 20);
    await gateway.close().finally(() => clearInterval(moving));
  });
  url = `http://127.0.0.1:${gateway.port}`;
});

const token = () => mintToken({}, { expiresInSeconds: 86_000 }).token;
const answered = () => total(url, 'tollgate_messages_total');
const closedAsSlow = async () => {
  return (await scrape(url, 'tollgate_closes_total')).get('code="SLOW_CONSUMER"') ?? 0;
};

async function openRaw(): Promise<RawSocket> {
  const raw = openRawSocket({ url, path: '/ws/secure', headers: { Authorization: `Bearer ${token()}` } });
  await until(() => raw.frames.some(({ payload }) => `${payload}`.includes('connection_established')));
  return raw;
}

async function openEngine(): Promise<RawSocket> {
  const raw = openRawSocket({ url, path: '/socket.io/?EIO=4&transport=websocket' });
  await until(() => raw.frames.length > 0);
  raw.sendFrame(`40${JSON.stringify({ token: token() })}`);
  await until(() => raw.frames.some(({ payload }) => `${payload}`.includes('connection_established')));
  return raw;
}

/** Sends one round of requests, and resolves when all of them have been answered. */
async function round(raw: RawSocket, message: string): Promise<void> {
  const before = await answered();
  // The dispatcher queues 64 messages.
  for (let i = 0; i < REQUESTS_PER_ROUND; i++) raw.sendFrame(message);
  await until(async () => (await answered()) >= before + REQUESTS_PER_ROUND, { timeoutMs: 15_000 });
}

describe('a client that sends and never reads', () => {
  it.each([
    ['a raw WebSocket', openRaw, JSON.stringify({ type: 'tools_list' })],
    ['Socket.IO over WebSocket', openEngine, '42["tools_list",{}]'],
  ])(
    'over %s is closed with SLOW_CONSUMER when nothing leaves for ten seconds',
    async (_over, open, message) => {
      const before = await closedAsSlow();
      const [stalled, reader] = [await open(), await open()];
      stalled.socket.pause();
      let rounds = 0;
      while ((await closedAsSlow()) === before && rounds < MAX_ROUNDS) {
        rounds += 1;
        await round(stalled, message);
        // The stall timeout closes it; the limit of bytes would close it during the answers.
        expect(await closedAsSlow()).toBe(before);
        clock.advance(STALL_MS);
      }
      expect(await closedAsSlow()).toBe(before + 1);
      expect(reader.closeFrame).toBeUndefined();
      stalled.socket.resume();
      await stalled.ended;
    },
    120_000,
  );

  it('over polling is closed when no poll fetches what waits, although it answers pings', async () => {
    const before = await closedAsSlow();
    const sid = JSON.parse((await (await fetch(`${url}${POLLING}`)).text()).slice(1)).sid;
    const post = (body: string) => fetch(`${url}${POLLING}&sid=${sid}`, { method: 'POST', body });
    await post(`40${JSON.stringify({ token: token() })}`);
    let got = '';
    while (!got.includes('connection_established')) got += await (await fetch(`${url}${POLLING}&sid=${sid}`)).text();
    const answers = await answered();
    await post('42["ping",{}]');
    await until(async () => (await answered()) > answers);
    clock.advance(8_000);
    await post('3');
    expect(await closedAsSlow()).toBe(before);
    clock.advance(4_000);
    expect(await closedAsSlow()).toBe(before + 1);
  });
});
