import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { closeAfter } from './open-resources.ts';

/**
 * A proxy to Redis that delays each chunk of bytes by a random time, per direction and in order, like a distant or busy
 * network. Open until the file ends.
 * @returns its URL
 */
export async function slowRedis(redisUrl: string, { maxDelayMs }: { maxDelayMs: number }): Promise<string> {
  const { hostname, port } = new URL(redisUrl);
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (client) => {
    const redis = connect({ host: hostname, port: Number(port), noDelay: true });
    for (const [from, to] of [[client, redis] as const, [redis, client] as const]) {
      sockets.add(from);
      let sent = Promise.resolve();
      from.on('data', (bytes) => {
        const arrived = delay(Math.random() * maxDelayMs);
        sent = sent.then(() => arrived).then(() => void to.write(bytes));
      });
      from.on('error', () => to.destroy());
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeAfter('file', async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
