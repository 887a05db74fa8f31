import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DeploymentCheck } from './lib/deployment-check.ts';
import { PROJECT_ROOT } from './lib/processes.ts';
import { Steps } from './lib/steps.ts';
import { runScript, UserError } from './lib/user-error.ts';

const run = promisify(execFile);
const TIMEOUT_MS = 20 * 60_000;
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
const ENGINES = ['docker', 'podman'];
/** Longer than the restart of one gateway and one worker. */
const LOAD = { users: 20, iterationsPerSecond: 10, seconds: 90 };
/** A project name of its own, so that it touches no other deployment of this compose file. */
const PROJECT = 'tollgate-image-check';

async function engine(): Promise<string> {
  for (const command of ENGINES) {
    const works = await run(command, ['compose', 'version']).then(
      () => true,
      () => false,
    );
    if (works) return command;
  }
  throw new UserError('This test needs docker or podman with its compose command.');
}

/**
 * `npm run test:image`: builds the Dockerfile unchanged, starts docker-compose.yml, chats and bills through HAProxy,
 * restarts a gateway and a worker under load, and removes everything with its volumes.
 */
await runScript(async () => {
  const steps = new Steps(process.stdout);
  const command = await engine();
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-image-'));
  const file = join(folder, 'secrets.env');
  execFileSync(process.execPath, [join(PROJECT_ROOT, 'scripts/make-secrets.mjs'), file]);
  const compose = (...args: readonly string[]) => {
    const options = { cwd: PROJECT_ROOT, timeout: TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES };
    return run(command, ['compose', '--project-name', PROJECT, '--env-file', file, ...args], options);
  };
  const lines = readFileSync(file, 'utf8').split('\n');
  const secret = (name: string) => lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1) ?? '';
  const check = new DeploymentCheck({
    url: 'http://127.0.0.1:8000',
    authUrl: 'http://127.0.0.1:8081',
    // AUTH_SERVICE_URL of docker-compose.yml.
    issuer: 'http://auth.localhost:8081',
    secrets: {
      jwt: secret('JWT_SECRET_KEY'),
      service: secret('SERVICE_SECRET'),
      demoPassword: secret('DEMO_PASSWORD'),
    },
  });
  try {
    await steps.run(
      () => 'The image is built',
      () => compose('build'),
    );
    await steps.run(
      () => 'All services are healthy',
      () => compose('up', '--wait', '--detach'),
    );
    await steps.run(
      () => 'A chat through HAProxy',
      () => check.chat(),
    );
    await steps.run(
      (records) => `A bill of ${records} records`,
      () => check.bill(),
    );
    await steps.run(
      (figures) => `Restarts: ${figures.events_lost} events lost, ${figures.events_repeated} repeated`,
      () => check.underLoad(LOAD, () => compose('restart', 'gateway-1', 'worker-1')),
    );
    await steps.run(
      (records) => `A bill of ${records} records, none twice and none missing`,
      () => check.bill(),
    );
  } finally {
    check.close();
    await steps.run(
      () => 'Removed',
      () => compose('down', '--volumes', '--remove-orphans'),
    );
    rmSync(folder, { recursive: true, force: true });
  }
  return 0;
});
