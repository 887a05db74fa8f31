/**
 * Writes the secrets of a new deployment to a file that Docker Compose (`.env`) and kustomize (a secretGenerator) read:
 *
 *     node scripts/make-secrets.mjs .env
 *
 * It needs no dependency and never replaces a file, because losing the secrets of a deployment ends its sessions.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';

const [file] = process.argv.slice(2);
if (!file) {
  process.stderr.write('Which file? node scripts/make-secrets.mjs .env\n');
  process.exit(2);
}
/** 256 bits: what HS256 requires (RFC 7518 section 3.2), in letters that need no escaping in a URL. */
const secret = () => randomBytes(32).toString('base64url');
const lines = [
  `JWT_SECRET_KEY=${secret()}`,
  `SERVICE_SECRET=${secret()}`,
  `REDIS_PASSWORD=${secret()}`,
  `ARCHIVE_PASSWORD=${secret()}`,
  // Short enough to type.
  `DEMO_PASSWORD=${randomBytes(9).toString('base64url')}`,
];
try {
  writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o600, flag: 'wx' });
} catch (error) {
  process.stderr.write(
    error.code === 'EEXIST' ? `${file} is there already; it stays as it is.\n` : `${error.message}\n`,
  );
  process.exit(1);
}
process.stdout.write(`${file}: JWT_SECRET_KEY, SERVICE_SECRET, REDIS_PASSWORD, ARCHIVE_PASSWORD, DEMO_PASSWORD\n`);
