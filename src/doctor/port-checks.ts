import { createServer } from 'node:net';
import type { Config } from '../config.ts';
import { type Finding, findings } from './findings.ts';

const { ok, problem } = findings('ports');
const TIMEOUT_MS = 2_000;

/** Checks for each port whether it is free, used by Tollgate, or used by another program. */
export async function checkPorts(config: Config): Promise<Finding[]> {
  const { HOST: host } = config;
  const ports = {
    PORT: config.PORT,
    WORKER_PORT: config.WORKER_PORT,
    AUTH_PORT: config.AUTH_PORT,
    METRICS_PORT: config.METRICS_PORT,
  };
  return Promise.all(
    Object.entries(ports)
      // Port 0 is chosen by the system.
      .filter((entry): entry is [string, number] => entry[1] !== undefined && entry[1] !== 0)
      .map(([name, port]) => checkPort(name, port, host)),
  );
}

async function checkPort(name: string, port: number, host: string): Promise<Finding> {
  const fault = await listenFault(port, host);
  if (fault === undefined) return ok(name, `${port} is free`);
  if (fault !== 'EADDRINUSE') {
    return problem('failed', name, `${port} cannot be used: ${fault}`, `Choose another ${name}, or another HOST.`);
  }
  if (await isTollgate(port)) return ok(name, `${port} is used by a process of Tollgate`);
  return problem(
    'warning',
    name,
    `${port} is used by another program`,
    `Choose another ${name}, or stop that program.`,
  );
}

/** Returns the error code of listening on a port; undefined if it is free. */
function listenFault(port: number, host: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ port, host }, () => server.close(() => resolve(undefined)));
  });
}

/** Whether a health route of the gateway, the worker or the auth service answers. */
async function isTollgate(port: number): Promise<boolean> {
  const answers = await Promise.all(
    ['/health/live', '/auth/health'].map(async (path) => {
      try {
        const response = await fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
        const body = (await response.json()) as unknown;
        return typeof body === 'object' && body !== null && 'status' in body;
      } catch {
        return false;
      }
    }),
  );
  return answers.includes(true);
}
