import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { get } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { recordOutput } from './leaks.ts';
import { UserError } from './user-error.ts';

/** The checkout. */
export const PROJECT_ROOT: string = fileURLToPath(new URL('../../', import.meta.url));

/** Processes start in about a second; a busy machine with a cold disk takes ten times that. */
const READY_TIMEOUT_MS = 30_000;
/** Compile cache of Node, kept between starts: a gateway starts with a third less CPU (0.45 s instead of 0.70 s). */
const COMPILE_CACHE = 'node_modules/.cache/tollgate';
const READY_POLL_MS = 25;
const PROBE_TIMEOUT_MS = 2_000;
const STOP_GRACE_MS = 5_000;
/** Lines of a process's output that are kept, to be shown if it fails. */
const TAIL_LINES = 30;

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export type OutputStream = 'stdout' | 'stderr';
export type OnLine = (line: string, stream: OutputStream) => void;

/** A process that can be started any number of times: how to launch it, and how to detect that it is ready. */
export interface Startable {
  readonly name: string;
  launch(): ManagedProcess;
  /** Returns whether the launched process is ready; polled until it is. */
  isReady(): Promise<boolean>;
}

export interface LaunchOptions {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Environment;
  readonly onLine?: OnLine | undefined;
}

/**
 * A named child process: running → exited, once. It has its own session, so that Ctrl-C in the terminal reaches only
 * the parent, which stops its children in order. The child does not outlive the parent (see `boundToUs`).
 */
export class ManagedProcess {
  readonly name: string;
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #tail: string[] = [];
  #hasExited = false;

  constructor({ name, command, args, env, onLine }: LaunchOptions) {
    this.name = name;
    const [program, ...rest] = boundToUs([command, ...args]);
    this.#child = spawn(program, rest, {
      cwd: PROJECT_ROOT,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    for (const stream of ['stdout', 'stderr'] as const) {
      onLines(this.#child[stream], (line) => {
        this.#tail.push(line);
        if (this.#tail.length > TAIL_LINES) this.#tail.shift();
        recordOutput(line);
        onLine?.(line, stream);
      });
    }
    this.exited = new Promise((resolve) => {
      // 'close' follows the last line of output; 'error' means that the program could not be started.
      this.#child.once('error', (error) => {
        this.#tail.push(error.message);
        resolve({ code: null, signal: null });
      });
      this.#child.once('close', (code, signal) => resolve({ code, signal }));
    });
    void this.exited.then(() => {
      this.#hasExited = true;
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get running(): boolean {
    return !this.#hasExited;
  }

  /** The last lines of output. */
  get output(): string {
    return this.#tail.join('\n');
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Sends SIGTERM, and SIGKILL if the process has not ended after `graceMs`. */
  async stop(graceMs: number = STOP_GRACE_MS): Promise<Exit> {
    this.kill('SIGTERM');
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Launches a process and waits until it is ready. If it ends before or takes too long, the process is stopped. */
export async function start(startable: Startable, timeoutMs: number = READY_TIMEOUT_MS): Promise<ManagedProcess> {
  const child = startable.launch();
  await whenReady(child, startable, timeoutMs);
  return child;
}

/** @throws UserError with the last output: at once if the process ends, after `timeoutMs` if it never becomes ready */
export async function whenReady(
  child: ManagedProcess,
  { name, isReady }: Pick<Startable, 'name' | 'isReady'>,
  timeoutMs: number = READY_TIMEOUT_MS,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (Date.now() < deadline && child.running) {
    if (await isReady()) return;
    await Promise.race([delay(READY_POLL_MS), child.exited]);
  }
  const ended = child.running ? undefined : await child.exited;
  if (!ended) await child.stop();
  const how = ended ? `${describeExit(ended)} before it was ready` : `was not ready after ${timeoutMs / 1000} s`;
  throw new UserError(`${name} ${how}.${child.output ? ` Its last output:\n${indent(child.output)}` : ''}`);
}

export interface NodeProcessOptions {
  readonly name: string;
  /** The entry file, relative to the checkout. */
  readonly entry: string;
  /** The complete environment. */
  readonly env: Environment;
  /** Answers 200 when the process is ready. */
  readonly readyUrl: string;
  readonly onLine?: OnLine | undefined;
}

/** Returns a process of this project that runs on the current Node. */
export function nodeProcess({ name, entry, env: given, readyUrl, onLine }: NodeProcessOptions): Startable {
  const env = { NODE_COMPILE_CACHE: join(PROJECT_ROOT, COMPILE_CACHE), ...given };
  return {
    name,
    launch: () => new ManagedProcess({ name, command: process.execPath, args: [entry], env, onLine }),
    isReady: async () => (await httpStatus(readyUrl)) === 200,
  };
}

/** Returns the status of a GET; undefined if the server is unreachable. */
export function httpStatus(url: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    // No agent: a connection kept alive would delay the shutdown of the polled server.
    const request = get(url, { agent: false, timeout: PROBE_TIMEOUT_MS }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(undefined));
    request.on('close', () => resolve(undefined));
  });
}

export function describeExit({ code, signal }: Exit): string {
  if (signal) return `was ended by ${signal}`;
  return code === null ? 'could not be started' : `ended with exit code ${code}`;
}

export function indent(text: string): string {
  return text.replace(/^/gm, '    ');
}

/**
 * Returns the command wrapped so that the kernel kills it if this process ends without stopping it (`kill -9`, a
 * crash). Otherwise a port would stay in use. Only Linux supports this; on other systems such a child must be ended by
 * hand.
 */
function boundToUs(command: readonly string[]): [string, ...string[]] {
  const prefix = process.platform === 'linux' && canBindToParent() ? ['setpriv', '--pdeathsig', 'KILL', '--'] : [];
  return [...prefix, ...command] as [string, ...string[]];
}

/** Checked on each start: 2 ms beside the 300 ms of a Node start. BusyBox's setpriv lacks the option. */
function canBindToParent(): boolean {
  return spawnSync('setpriv', ['--pdeathsig', 'KILL', '--', 'true']).status === 0;
}

function onLines(stream: NodeJS.ReadableStream | null, onLine: (line: string) => void): void {
  let rest = '';
  stream?.setEncoding('utf8');
  stream?.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '') onLine(line);
  });
  stream?.on('end', () => {
    if (rest !== '') onLine(rest);
  });
}
