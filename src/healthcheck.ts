/**
 * Checks that a process responds with 200. Container engines run health checks as commands, and the image has no curl.
 *
 *     node src/healthcheck.ts http://127.0.0.1:8000/health/ready
 *
 * Exit code 0 or 1; other codes are reserved (https://docs.docker.com/reference/dockerfile/#healthcheck).
 */
const TIMEOUT_MS = 3_000;

const [url = 'http://127.0.0.1:8000/health/ready'] = process.argv.slice(2);
try {
  const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  // The engine stores the output, and `docker inspect` shows it.
  process.stdout.write(`${response.status} ${await response.text()}\n`);
  process.exitCode = response.ok ? 0 : 1;
} catch (error) {
  process.stdout.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
