import { createServer } from 'node:net';

/**
 * Where free ports are looked for. Below the range that Linux (32768) and macOS (49152) take the ports of outgoing
 * connections from: one found free there could be some client's a moment later.
 */
const LOWEST = 20_000;
const HIGHEST = 32_000;
const ATTEMPTS = 200;

export const LOOPBACK = '127.0.0.1';

/** Whether a server can listen there now. */
export function isPortFree(port: number, host: string = LOOPBACK): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, host, () => server.close(() => resolve(true)));
  });
}

/** The first free port from `from` upwards. @throws Error when there is none among the next hundred */
export async function nextFreePort(from: number): Promise<number> {
  for (let port = from; port < from + 100; port++) {
    if (await isPortFree(port)) return port;
  }
  throw new Error(`no free port between ${from} and ${from + 99}`);
}

/**
 * `count` free ports that follow each other, for processes whose addresses must be known before they start. The start
 * is random, so that tests that run side by side do not reach for the same ones.
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
