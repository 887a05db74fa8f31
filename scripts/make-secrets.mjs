/**
 * Writes the secrets of a new deployment to a file that Docker Compose (`.env`) and kustomize (a secretGenerator) read:
 *
 *     node scripts/make-secrets.mjs .env
 *     node scripts/make-secrets.mjs .env --rotate JWT_SECRET_KEY
 *     node scripts/make-secrets.mjs .env --force
 *
 * It needs no dependency. An existing file stays as it is, and the exit code is 0, so that `make-secrets && apply` can be
 * repeated. `--rotate` replaces one secret and keeps the previous signing key, `--force` replaces all of them.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

/** 256 bits: what HS256 requires (RFC 7518 section 3.2), in letters that need no escaping in a URL. */
const secret = () => randomBytes(32).toString('base64url');
const MAKERS = {
  JWT_SECRET_KEY: secret,
  SERVICE_SECRET: secret,
  REDIS_PASSWORD: secret,
  ARCHIVE_PASSWORD: secret,
  // Short enough to type.
  DEMO_PASSWORD: () => randomBytes(9).toString('base64url'),
};
const NAMES = Object.keys(MAKERS);
/** Secrets of which a process accepts the previous value too. */
const PREVIOUS = { JWT_SECRET_KEY: 'JWT_SECRET_KEY_PREVIOUS' };

const USAGE = 'Usage: node scripts/make-secrets.mjs <file> [--rotate <NAME> | --force]';

class UsageError extends Error {}

/** Writes a new file in one step, so that an interrupted run leaves the old one. */
function replace(file, text) {
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, text, { mode: 0o600, flag: 'wx' });
  renameSync(temporary, file);
}

function newSecrets() {
  return NAMES.map((name) => `${name}=${MAKERS[name]()}\n`).join('');
}

function create(file) {
  try {
    writeFileSync(file, newSecrets(), { mode: 0o600, flag: 'wx' });
    return `${file}: ${NAMES.join(', ')}`;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  const lines = readFileSync(file, 'utf8').split('\n');
  const missing = NAMES.filter((name) => !lines.some((line) => line.startsWith(`${name}=`)));
  return `${file} exists and stays as it is${missing.length > 0 ? `; it has no ${missing.join(', ')}` : ''}`;
}

/** Replaces one line, and keeps all others with their comments. */
function rotate(file, name) {
  if (!NAMES.includes(name)) throw new UsageError(`--rotate takes one of ${NAMES.join(', ')}`);
  const lines = readFileSync(file, 'utf8').split('\n');
  const old = lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1);
  if (old === undefined) throw new Error(`${file} has no ${name}`);
  const previous = PREVIOUS[name];
  const kept = lines.filter((line) => previous === undefined || !line.startsWith(`${previous}=`));
  const changed = kept.flatMap((line) => {
    if (!line.startsWith(`${name}=`)) return [line];
    return [`${name}=${MAKERS[name]()}`, ...(previous ? [`${previous}=${old}`] : [])];
  });
  replace(file, changed.join('\n'));
  return `${file}: a new ${name}${previous ? `; the old one is ${previous}` : ''}`;
}

function run() {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { force: { type: 'boolean' }, rotate: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help) return `${USAGE}\nSecrets: ${NAMES.join(', ')}`;
  const [file, ...others] = positionals;
  if (!file || others.length > 0) throw new UsageError('Name one file, such as .env.');
  if (values.force && values.rotate)
    throw new UsageError('--force replaces all secrets, --rotate one: use one of them');
  if (values.rotate !== undefined) return rotate(file, values.rotate);
  if (!values.force) return create(file);
  replace(file, newSecrets());
  return `${file}: new ${NAMES.join(', ')}`;
}

try {
  process.stdout.write(`${run()}\n`);
} catch (error) {
  const isUsage = error instanceof UsageError || error.code?.startsWith('ERR_PARSE_ARGS');
  process.stderr.write(`${error.message}\n${isUsage ? `${USAGE}\n` : ''}`);
  process.exitCode = isUsage ? 2 : 1;
}
