import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type Audit, judge, parseAudit, parseExceptions } from './lib/advisories.ts';
import { PROJECT_ROOT } from './lib/processes.ts';
import { runScript, UserError } from './lib/user-error.ts';

/** Timeout of npm's one request to the registry. */
const FETCH_TIMEOUT_MS = 15_000;
/** Timeout of npm as a whole, because a registry that sends single bytes never reaches the request timeout. */
const NPM_TIMEOUT_MS = 45_000;
const FLAGS = ['--json', '--package-lock-only', '--fetch-retries=0', `--fetch-timeout=${FETCH_TIMEOUT_MS}`];

/** Returns the npm that runs this script with the Node it runs on, or the one on the PATH. */
function npm(): [string, ...string[]] {
  const { npm_execpath: cli, npm_node_execpath: node = process.execPath } = process.env;
  return cli ? [node, cli] : ['npm'];
}

async function audit(root: string): Promise<Audit> {
  const [command, ...args] = npm();
  const signal = AbortSignal.timeout(NPM_TIMEOUT_MS);
  const child = spawn(command, [...args, 'audit', ...FLAGS], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'ignore'],
    signal,
  });
  const failed = new Promise<never>((_, reject) => child.once('error', reject));
  try {
    const stdout = await Promise.race([text(child.stdout), failed]);
    if (!signal.aborted) return parseAudit(stdout, readFileSync(join(root, 'package-lock.json'), 'utf8'));
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return { kind: 'unanswered', message: `npm audit took longer than ${NPM_TIMEOUT_MS} ms` };
}

/**
 * `npm run check:advisories`: compares package-lock.json with the advisories of the configured registry. The first
 * argument is the folder of another project.
 */
await runScript(async () => {
  const root = process.argv[2] ?? PROJECT_ROOT;
  const file = join(root, '.ci/allowed-advisories.json');
  let exceptions: ReturnType<typeof parseExceptions>;
  try {
    exceptions = parseExceptions(readFileSync(file, 'utf8'), new Date());
  } catch (cause) {
    throw new UserError(`${file}:\n${cause instanceof Error ? cause.message : cause}`, { cause });
  }
  const { ok, lines } = judge(await audit(root), exceptions);
  for (const line of lines) process.stdout.write(`${line}\n`);
  return ok ? 0 : 1;
});
