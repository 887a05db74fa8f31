import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { freePorts, LOOPBACK } from '../../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, PROJECT_ROOT, whenReady } from '../../scripts/lib/processes.ts';
import { dockerfileStages, type ImageLayout, layOutImage } from '../support/image.ts';
import { closeAfter } from '../support/open-resources.ts';
import { stack } from '../support/stack.ts';
import { until } from '../support/until.ts';

const MB = 1_000_000;
/** debian:trixie-slim, unpacked, rounded up; its publisher says 79 MB. */
const BASE_BYTES = 85 * MB;
const IMAGE_BYTES = 250 * MB;

const stages = dockerfileStages();
const last = stages.at(-1) ?? [];
const instruction = (name: string) => last.find((one) => one.name === name)?.text ?? '';
/** Runs as the image's user, where the tests may. */
const AS_USER = process.getuid?.() === 0 ? ['setpriv', '--reuid', '65532', '--regid', '65532', '--clear-groups'] : [];

let image: ImageLayout;

beforeAll(() => {
  image = layOutImage();
}, 60_000);

/** A process of the image, as its user, with nothing in its environment but this. */
function run(command: readonly string[], env: Record<string, string>, prefix: readonly string[] = []): ManagedProcess {
  const node = join(image.root, 'usr/local/bin/node');
  const inImage = ['env', '--chdir', image.app, ...command.map((word) => (word === 'node' ? node : word))];
  const [program = '', ...args] = [...prefix, ...AS_USER, ...inImage];
  const child = new ManagedProcess({
    name: command.join(' '),
    command: program,
    args,
    env: { PATH: process.env.PATH, ...env },
  });
  closeAfter('test', () => child.stop());
  return child;
}

function environment(env: Record<string, string>): Record<string, string> {
  const { redisUrl, authUrl, secrets, keyPrefix } = stack();
  return {
    ENVIRONMENT: 'production',
    NODE_ENV: 'production',
    HOST: LOOPBACK,
    REDIS_URL: redisUrl,
    REDIS_KEY_PREFIX: `${keyPrefix}i`,
    AUTH_SERVICE_URL: authUrl,
    JWT_SECRET_KEY: secrets.jwt,
    SERVICE_SECRET: secrets.service,
    DRAIN_SECONDS: '0',
    ...env,
  };
}

describe('the image', () => {
  it('is smaller than 250 MB with its base', () => {
    process.stdout.write(`copied onto the base image: ${(image.bytes / MB).toFixed(1)} MB\n`);
    expect(image.bytes + BASE_BYTES).toBeLessThan(IMAGE_BYTES);
  });

  it('is built from one Debian, and runs as a numeric user that is not root', () => {
    const bases = stages.map((stage) => stage[0]?.text);
    expect(bases).toEqual([
      expect.stringMatching(/^node:24-\$\{DEBIAN\}-slim AS /),
      expect.stringMatching(/^debian:\$\{DEBIAN\}-slim$/),
    ]);
    expect(instruction('USER')).toMatch(/^[1-9]\d{3,}:[1-9]\d{3,}$/);
    expect(instruction('CMD')).toBe('["node", "src/main.ts"]');
    expect(last.filter(({ name }) => name === 'RUN')).toEqual([]);
  });

  it('has a build context of nothing but what is copied', () => {
    const ignore = readFileSync(join(PROJECT_ROOT, '.dockerignore'), 'utf8').split('\n');
    const rules = ignore.filter((line) => line !== '' && !line.startsWith('#'));
    const copied = stages.flat().filter(({ name, text }) => name === 'COPY' && !text.startsWith('--from='));
    const sources = copied.flatMap(({ text }) => text.split(' ').slice(0, -1));
    expect(rules[0]).toBe('*');
    expect(rules.slice(1).toSorted()).toEqual([...new Set(sources)].map((source) => `!${source}`).toSorted());
  });

  it.each([
    ['src/main.ts', 'PORT', '/health/ready'],
    ['workers/main.ts', 'WORKER_PORT', '/health/ready'],
    ['src/auth-service/main.ts', 'AUTH_PORT', '/auth/health'],
  ])(
    'runs %s from what is copied, as its user, is found healthy, and ends with 0 on SIGTERM',
    async (entry, variable, path) => {
      const [port] = await freePorts(1);
      const url = `http://${LOOPBACK}:${port}${path}`;
      const child = run(['node', entry], environment({ [variable]: String(port) }));
      await whenReady(child, { name: entry, isReady: async () => (await httpStatus(url)) === 200 });
      expect(await run(['node', 'src/healthcheck.ts', url], {}).exited).toEqual({ code: 0, signal: null });
      expect(await child.stop()).toEqual({ code: 0, signal: null });
      expect(await run(['node', 'src/healthcheck.ts', url], {}).exited).toEqual({ code: 1, signal: null });
    },
  );

  it('has a health check whose command is there', () => {
    const [, command = '[]'] = /CMD (\[.*\])$/.exec(instruction('HEALTHCHECK')) ?? [];
    expect(JSON.parse(command)).toEqual(['node', 'src/healthcheck.ts', 'http://127.0.0.1:8000/health/ready']);
  });
});

/** A PID namespace of its own takes root, or a kernel that gives every user one. */
const NAMESPACE = ['unshare', '--pid', '--fork', '--kill-child'];
const canUnshare = spawnSync('unshare', [...NAMESPACE.slice(1), 'true']).status === 0;
if (!canUnshare) process.stderr.write('SKIPPED a process as PID 1: unshare --pid is not allowed here\n');

(canUnshare ? describe : describe.skip)('a process as PID 1, for which signals without a handler are ignored', () => {
  it.each(['src/main.ts', 'workers/main.ts', 'src/auth-service/main.ts'])(
    '%s ends at once on SIGTERM while it is still starting',
    async (entry) => {
      const sockets: Socket[] = [];
      // A Redis that takes the connection and never says a word: the start waits for it.
      const silent = createServer((socket) => sockets.push(socket));
      await new Promise<void>((resolve) => silent.listen(0, LOOPBACK, resolve));
      closeAfter('test', () => {
        for (const socket of sockets) socket.destroy();
        silent.close();
      });
      const { port } = silent.address() as { port: number };
      const child = run(['node', entry], environment({ REDIS_URL: `redis://${LOOPBACK}:${port}` }), NAMESPACE);
      await until(() => sockets.length > 0, { timeoutMs: 10_000, label: 'a connection to Redis' });
      const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
      process.kill(Number(children), 'SIGTERM');
      // Without a handler it would go on, and say after a while that Redis cannot be had.
      expect((await child.exited).code).toBe(143);
    },
  );
});
