import { join } from 'node:path';
import { LOOPBACK } from './ports.ts';
import { type Environment, nodeProcess, type OnLine, type Startable } from './processes.ts';

/** Start options of the processes of a deployment, for `npm start` and the tests. */
export interface ServiceOptions {
  /** Prefix of its log lines, and its name in messages. */
  readonly name: string;
  readonly port: number;
  /** Everything but the port. */
  readonly env: Environment;
  readonly onLine?: OnLine | undefined;
  /** Another checkout whose code is started; default: this one. */
  readonly root?: string | undefined;
}

export function httpUrl(port: number): string {
  return `http://${LOOPBACK}:${port}`;
}

export function authService({ name, port, env, onLine, root = '' }: ServiceOptions): Startable {
  const entry = join(root, 'auth-service/main.ts');
  const readyUrl = `${httpUrl(port)}/auth/health`;
  return nodeProcess({ name, entry, readyUrl, onLine, env: { ...env, AUTH_PORT: String(port) } });
}

export function gateway({ name, port, env, onLine, root = '' }: ServiceOptions): Startable {
  const entry = join(root, 'src/main.ts');
  const readyUrl = `${httpUrl(port)}/health/ready`;
  return nodeProcess({ name, entry, readyUrl, onLine, env: { ...env, PORT: String(port) } });
}

export function worker({ name, port, env, onLine, root = '' }: ServiceOptions): Startable {
  const entry = join(root, 'workers/main.ts');
  const readyUrl = `${httpUrl(port)}/health/ready`;
  return nodeProcess({ name, entry, readyUrl, onLine, env: { ...env, WORKER_PORT: String(port) } });
}
