/**
 * Makes the secrets of a new installation, in a file that Docker Compose (`.env`) and kustomize (a secretGenerator) read:
 *
 *     node scripts/make-secrets.mjs .env
 *
 * It needs nothing installed, and replaces no file: whoever lost the secrets of an installation has lost its sessions.
 */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';

const [file] = process.argv.slice(2);
if (!file) {
  process.stderr.write('Which file? node scripts/make-secrets.mjs .env\n');
  process.exit(2);
}
/** 256 bits: what HS256 wants (RFC 7518 section 3.2), in letters that need no escaping in a URL. */
const secret = () => randomBytes(32).toString('base64url');
const lines = [
  `JWT_SECRET_KEY=${secret()}`,
  `SERVICE_SECRET=${secret()}`,
  `REDIS_PASSWORD=${secret()}`,
  `ARCHIVE_PASSWORD=${secret()}`,
  // Typed by people.
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
