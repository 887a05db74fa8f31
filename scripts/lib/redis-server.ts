import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import { freePort, LOOPBACK } from './ports.ts';
import { ManagedProcess, type Startable, start } from './processes.ts';
import { UserError } from './user-error.ts';

const run = promisify(execFile);

/** Sharded publish from scripts came with Redis 7.0; Valkey began at 7.2 and is supported from 8. */
const PROGRAMS = [
  { command: 'redis-server', minMajor: 7 },
  { command: 'valkey-server', minMajor: 8 },
] as const;
const IS_DEBIAN = existsSync('/etc/debian_version');
const MANUAL_ADVICE = IS_DEBIAN
  ? 'Install Redis 7.0 or newer: sudo apt-get update && sudo apt-get install redis-server'
  : 'Install Redis 7.0 or newer, or Valkey 8: https://redis.io/docs/latest/operate/oss_and_stack/install/';

/** An append-only file of several gigabytes takes this long to load. */
const READY_TIMEOUT_MS = 60_000;
const PING_TIMEOUT_MS = 1_000;

export interface RedisProgram {
  readonly command: string;
  readonly version: string;
}

export interface RedisServerOptions {
  /** Default: a free port. */
  readonly port?: number | undefined;
  /** Folder of the append-only file; created if missing. */
  readonly dir?: string | undefined;
  /** Whether data survives a restart. */
  readonly persistent?: boolean | undefined;
  /**
   * When Redis forces the append-only file to disk; `everysec` by default, as in Redis. With `no` and `always` the
   * kernel has each write before its reply. With `everysec` it may not: while an fsync is in flight Redis delays its
   * writes for up to two seconds (`flushAppendOnlyFile` in its `aof.c`), and a kill loses those.
   */
  readonly appendfsync?: 'always' | 'everysec' | 'no' | undefined;
}

export interface RedisServer {
  readonly url: string;
  readonly port: number;
  readonly process: ManagedProcess;
  /** Stops only this server. */
  stop(): Promise<void>;
}

/** Returns the first server on the PATH that is new enough. */
export async function findRedisServer(): Promise<RedisProgram | undefined> {
  for (const { command, minMajor } of PROGRAMS) {
    const version = await versionOf(command);
    if (version !== undefined && Number.parseInt(version, 10) >= minMajor) return { command, version };
  }
  return undefined;
}

/**
 * Returns a server program, and installs one with the system's package manager if there is none.
 * @param announce called before a slow step
 * @throws UserError that says what to install
 */
export async function ensureRedisServer(announce: (text: string) => void): Promise<RedisProgram> {
  const found = await findRedisServer();
  if (found) return found;
  const installer = await systemInstaller();
  if (!installer) throw new UserError(await missingAdvice());
  announce(`Redis is missing; installing it (${installer.title}) …`);
  for (const command of installer.commands) await install(command, installer.title);
  const installed = await findRedisServer();
  if (!installed) throw new UserError(await missingAdvice());
  return installed;
}

export async function startRedisServer(options: RedisServerOptions = {}): Promise<RedisServer> {
  const program = await findRedisServer();
  if (!program) throw new UserError(await missingAdvice());
  const port = options.port ?? (await freePort());
  const server = await start(redisStartable(program, { ...options, port }), READY_TIMEOUT_MS);
  return {
    url: redisUrl(port),
    port,
    process: server,
    stop: async () => {
      await server.stop();
    },
  };
}

export function redisUrl(port: number): string {
  return `redis://${LOOPBACK}:${port}`;
}

/** A server for this machine only, with the settings that Tollgate requires: Redis evicts nothing. */
export function redisStartable(
  { command }: RedisProgram,
  {
    port,
    dir = tmpdir(),
    persistent = false,
    appendfsync = 'everysec',
  }: RedisServerOptions & { readonly port: number },
): Startable {
  const settings = {
    port: String(port),
    bind: LOOPBACK,
    dir,
    'maxmemory-policy': 'noeviction',
    appendonly: persistent ? 'yes' : 'no',
    appendfsync,
    save: '',
    loglevel: 'warning',
    daemonize: 'no',
  };
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
  return {
    name: 'Redis',
    launch() {
      mkdirSync(dir, { recursive: true });
      return new ManagedProcess({ name: 'redis', command, args, env: process.env });
    },
    isReady: () => answersPing(port),
  };
}

/** A server that still loads its file answers with an error. */
function answersPing(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, LOOPBACK, () => socket.write('PING\r\n'));
    socket.setTimeout(PING_TIMEOUT_MS, () => socket.destroy());
    socket.on('error', () => resolve(false));
    socket.on('close', () => resolve(false));
    socket.once('data', (reply) => {
      resolve(reply.toString().startsWith('+PONG'));
      socket.destroy();
    });
  });
}

async function versionOf(command: string): Promise<string | undefined> {
  try {
    const { stdout } = await run(command, ['--version']);
    return /\bv=(\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  } catch {
    return undefined;
  }
}

async function missingAdvice(): Promise<string> {
  for (const { command, minMajor } of PROGRAMS) {
    const version = await versionOf(command);
    if (version !== undefined)
      return `${command} ${version} is too old: ${minMajor} or newer is needed. ${MANUAL_ADVICE}`;
  }
  return `Redis is missing. ${MANUAL_ADVICE}`;
}

interface Installer {
  readonly title: string;
  readonly commands: readonly (readonly [string, ...string[]])[];
}

async function systemInstaller(): Promise<Installer | undefined> {
  if (process.platform === 'darwin' && (await succeeds('brew', ['--version']))) {
    return { title: 'brew install redis', commands: [['brew', 'install', 'redis']] };
  }
  if (!IS_DEBIAN) return undefined;
  const title = 'apt-get install redis-server';
  // RUNLEVEL=1 keeps the package from starting its own server on the default port.
  const apt = ['env', 'DEBIAN_FRONTEND=noninteractive', 'RUNLEVEL=1', 'apt-get'] as const;
  const update = [...apt, 'update'] as const;
  const add = [...apt, 'install', '-y', '--no-install-recommends', 'redis-server'] as const;
  if (process.getuid?.() === 0) return { title, commands: [update, add] };
  if (!(await succeeds('sudo', ['-n', 'true']))) return undefined;
  return { title: `sudo ${title}`, commands: [update, add].map((command) => ['sudo', '-n', ...command] as const) };
}

async function succeeds(command: string, args: readonly string[]): Promise<boolean> {
  return run(command, [...args]).then(
    () => true,
    () => false,
  );
}

/** Runs one command of an installer and shows its output only if it fails. */
async function install([command, ...args]: readonly [string, ...string[]], title: string): Promise<void> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const code = await new Promise<number | null>((resolve) => {
    child.once('error', () => resolve(null));
    child.once('close', resolve);
  });
  if (code !== 0) throw new UserError(`${output.trim()}\nInstalling Redis failed (${title}). ${MANUAL_ADVICE}`);
}
