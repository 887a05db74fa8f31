import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { type Exit, ManagedProcess } from '../../scripts/lib/processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';
import { closeAfter } from '../support/open-resources.ts';
import { stack } from '../support/stack.ts';
import { login, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const TIMEOUT_MS = 90_000;
/** A bound that holds while this machine runs all other tests. */
const PATIENT = ['--threshold', 'first_event_p95_ms<60000'];

const QUICK = {
  transports: { websocket: 1 },
  turns: { agent_request: 1 },
  messages: ['Hello'],
  think_ms: { min: 0, max: 0 },
};

interface Finished {
  readonly exit: Exit;
  readonly text: string;
}

/** Runs the load generator like a user, with only the given environment. */
function start(args: readonly string[], env: Record<string, string> = {}) {
  const inherited = Object.entries(process.env).filter(([name]) => !VARIABLE_NAMES.includes(name));
  const lines: string[] = [];
  const child = new ManagedProcess({
    name: 'load',
    command: process.execPath,
    args: ['load/main.ts', ...args],
    env: { ...Object.fromEntries(inherited), ...env },
    onLine: (line) => lines.push(line),
  });
  closeAfter('test', () => child.stop());
  return { child, text: () => lines.join('\n') };
}

async function load(args: readonly string[], env: Record<string, string> = {}): Promise<Finished> {
  const { child, text } = start(args, env);
  const exit = await child.exited;
  return { exit, text: text() };
}

describe('npm run load', () => {
  let folder: string;
  let pool: string[];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tollgate-load-'));
    closeAfter('file', () => rm(folder, { recursive: true, force: true }));
    pool = ['--url', stack().gateways[0]?.url ?? '', '--state-dir', folder];
  });

  const minting = () => ({ JWT_SECRET_KEY: stack().secrets.jwt, AUTH_SERVICE_URL: stack().authUrl });

  it(
    'runs twenty users over all transports, misses none of their events, and reports in JSON and HTML',
    async () => {
      const [json, html] = [join(folder, 'results.json'), join(folder, 'report.html')];
      const size = ['--users', '20', '--turns', '20/s', '--duration', '4', '--threads', '2'];
      const { exit, text } = await load([...pool, ...size, ...PATIENT, '--json', json, '--html', html], minting());
      expect(text).toContain('Passed.');
      expect(exit.code).toBe(0);

      const { figures, passed, errors } = JSON.parse(await readFile(json, 'utf8'));
      expect({ passed, errors }).toEqual({ passed: true, errors: {} });
      expect(figures).toMatchObject({ connection_success: 1, authentication_success: 1, run_success: 1 });
      expect(figures).toMatchObject({ events_lost: 0, events_repeated: 0, turns_unfinished: 0, turns_dropped: 0 });
      // A run of the built-in agent has six events; every cut connection was resumed.
      expect(figures.events).toBeGreaterThanOrEqual(figures.runs_completed * 6);
      expect(figures.reconnects).toBeGreaterThan(0);
      expect(figures.resumes).toBe(figures.reconnects);
      expect(figures.turns_completed).toBe(figures.turns_due);

      const report = await readFile(html, 'utf8');
      expect(report).toContain('<svg');
      expect(report).not.toMatch(/<script|<link|src=|url\(|https?:\/\/(?!127)/);
    },
    TIMEOUT_MS,
  );

  it(
    'ends with exit code 1 when a threshold does not hold, and says which',
    async () => {
      const size = ['--users', '3', '--turns', '20/s', '--duration', '2', '--grace', '20'];
      const { exit, text } = await load([...pool, ...size, '--threshold', 'run_p50_ms<0.001'], minting());
      expect(text).toMatch(/FAILED +run_p50_ms/);
      expect(text).toContain('Failed.');
      expect(exit.code).toBe(1);
    },
    TIMEOUT_MS,
  );

  it(
    'takes tokens from a file, and fails when the pool refuses them',
    async () => {
      const good = [mintToken().token, (await login()).access_token];
      const files = { good: join(folder, 'good'), bad: join(folder, 'bad'), mix: join(folder, 'mix.json') };
      // Users that do not think between turns: two of them complete ten turns per second.
      await writeFile(files.mix, JSON.stringify(QUICK));
      await writeFile(files.good, `# two users\n${good.join('\n')}\n`);
      await writeFile(files.bad, `${good[0]}x\n${good[1]}x\n`);
      const size = ['--users', '2', '--turns', '10/s', '--duration', '2', '--grace', '20', '--mix', files.mix];
      const let_in = await load([...pool, ...size, ...PATIENT, '--tokens', files.good]);
      expect([let_in.exit.code, let_in.text]).toEqual([0, expect.stringContaining('Passed.')]);
      const refused = await load([...pool, ...size, '--grace', '0', '--tokens', files.bad]);
      expect(refused.text).toMatch(/FAILED +authentication_success +0\.00 %/);
      expect(refused.text).toMatch(/connection: VALIDATION_FAILED/);
      expect(refused.exit.code).toBe(1);
    },
    TIMEOUT_MS,
  );

  it(
    'ends on Ctrl-C with what it has measured so far',
    async () => {
      const size = ['--users', '3', '--turns', '5/s', '--duration', '600', '--threshold', 'run_success>=0.01'];
      const { child, text } = start([...pool, ...size, ...PATIENT], minting());
      const isBusy = () => /turns \d+ due, [1-9]/.test(text()) || !child.running;
      await until(isBusy, { timeoutMs: TIMEOUT_MS, label: 'turns that are done' });
      child.kill('SIGINT');
      expect((await child.exited).code).toBe(0);
      expect(text()).toMatch(/ok +connection_success/);
      expect(text()).toContain('Passed.');
    },
    TIMEOUT_MS,
  );

  it('distinguishes an unreachable deployment from a slow one: no connection, exit code 1', async () => {
    const nobody = ['--url', 'http://127.0.0.1:9', '--state-dir', folder];
    const size = ['--users', '2', '--turns', '2/s', '--duration', '1', '--grace', '0'];
    const { exit, text } = await load([...nobody, ...size], minting());
    expect(text).toMatch(/FAILED +connection_success +0\.00 %/);
    expect(text).toContain('Nothing connected to http://127.0.0.1:9.');
    expect(exit.code).toBe(1);
  });

  it.each([
    ['an unknown figure', ['--threshold', 'speed<1'], 'unknown figure "speed"'],
    ['a rate that is none', ['--turns', 'many'], 'a rate such as 200/s'],
    ['a mix that is not there', ['--mix', 'none'], 'The mix none cannot be read'],
    ['more users than tokens', ['--login', '--users', '5'], 'four demo accounts'],
  ])('refuses %s with a sentence', async (_what, args, sentence) => {
    const demo = { DEMO_PASSWORD: stack().demoPassword };
    const { exit, text } = await load([...pool, ...args], { ...minting(), ...demo });
    expect(text).toContain(sentence);
    expect(text).not.toContain('    at ');
    expect(exit.code).toBe(1);
  });
});
