import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { expect, it } from '@jest/globals';
import { Readiness } from '../../src/http/readiness.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { until } from '../support/until.ts';

/** The second that an answer may take, and one to end the request; undici would wait ten for a connection. */
const PROBE_MS = 1_000 + 1_000;
const HAS_KEYS = { ready: true, withoutKeys: [] };

async function readiness(authServiceUrl: string): Promise<Readiness> {
  const redis = await connectRedis(testRedisUrl(), 'commands', createLogger('test', 'silent'));
  closeAfter('test', () => disconnectRedis(redis));
  return new Readiness({ redis, subscriber: redis, clock: systemClock, tokens: HAS_KEYS }, { authServiceUrl });
}

async function expectProbeEnds(url: string): Promise<void> {
  const node = await readiness(url);
  const watch = await Stopwatch.start();
  expect(await node.check()).toMatchObject({ redis: true, authService: false, draining: false });
  expect(watch.ms).toBeLessThan(watch.allow(PROBE_MS));
}

/** A port whose connections are not accepted: the kernel drops what exceeds its queue, and a client waits. */
async function silentPort(): Promise<number> {
  const program = `require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () {
    process.stdout.write(String(this.address().port)); })`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  closeAfter('test', () => void child.kill('SIGKILL'));
  const [printed] = await once(child.stdout, 'data');
  child.kill('SIGSTOP');
  const port = Number(String(printed));
  let taken = 0;
  for (let at = 0; at < 8; at += 1) {
    const socket = connect(port, '127.0.0.1', () => {
      taken += 1;
    });
    socket.on('error', () => undefined);
    closeAfter('test', () => void socket.destroy());
  }
  await until(() => taken > 0);
  return port;
}

it('an auth service that takes no connection keeps no probe waiting', async () => {
  await expectProbeEnds(`http://127.0.0.1:${await silentPort()}`);
});

it('nor does one that answers a byte at a time', async () => {
  const answering = new Set<ServerResponse>();
  const server = createServer((_request, response) => {
    answering.add(response.writeHead(200));
    const timer = setInterval(() => response.write('.'), 50);
    response.once('close', () => clearInterval(timer));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeAfter('test', () => {
    server.closeAllConnections();
    server.close();
  });
  await expectProbeEnds(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  // The connection is released too.
  await until(() => [...answering].every(({ destroyed }) => destroyed));
});
