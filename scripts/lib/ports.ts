import { createServer } from 'node:net';

/**
 * Lowest candidate for a free port. It is below the range from which Linux (32768) and macOS (49152) assign ports to
 * outgoing connections, which could take a free one at any moment.
 */
const LOWEST = 20_000;
const HIGHEST = 32_000;
const ATTEMPTS = 200;

export const LOOPBACK = '127.0.0.1';

/** Returns whether a server can listen on the port now. */
export function isPortFree(port: number, host: string = LOOPBACK): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, host, () => server.close(() => resolve(true)));
  });
}

/** Returns the first free port from `from` upwards. @throws Error if the next hundred are taken */
export async function nextFreePort(from: number): Promise<number> {
  for (let port = from; port < from + 100; port++) {
    if (await isPortFree(port)) return port;
  }
  throw new Error(`no free port between ${from} and ${from + 99}`);
}

/**
 * Returns `count` consecutive free ports, for processes whose addresses must be known before they start. The start is
 * random, so that concurrent tests do not choose the same ones.
 */
export async function freePorts(count: number): Promise<number[]> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const first = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST - count));
    const ports = Array.from({ length: count }, (_, index) => first + index);
    const free = await Promise.all(ports.map((port) => isPortFree(port)));
    if (free.every(Boolean)) return ports;
  }
  throw new Error(`no ${count} free ports in a row between ${LOWEST} and ${HIGHEST}`);
}

export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port as number;
}
