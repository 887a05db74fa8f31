import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

/**
 * What `npm start` keeps about the installation it runs on this machine, for its own next start and for `npm run chat`,
 * `npm run bill` and `npm run load`. Secrets stay the same from start to start: tokens and stored hashes depend on them.
 */
const DevState = z.object({
  /** In front of the gateways; missing where there is none. */
  balancer_url: z.string().optional(),
  gateway_urls: z.array(z.string()).min(1),
  worker_url: z.string(),
  auth_url: z.string(),
  redis_url: z.string(),
  jwt_secret: z.string().min(32),
  service_secret: z.string().min(32),
  demo_password: z.string().min(12),
});
export type DevState = z.infer<typeof DevState>;
export type DevSecrets = Pick<DevState, 'jwt_secret' | 'service_secret' | 'demo_password'>;

export const DEFAULT_STATE_DIR = '.tollgate';
const FILE = 'dev.json';
const SECRET_BYTES = 32;
/** Short enough to be typed, 72 bits. */
const PASSWORD_BYTES = 9;

export function readDevState(stateDir: string): DevState | undefined {
  return DevState.safeParse(readJson(stateDir)).data;
}

export function writeDevState(stateDir: string, state: DevState): void {
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  const file = join(stateDir, FILE);
  // Renamed into place, so that a reader never finds half a file; the mode holds from the first byte.
  writeFileSync(`${file}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** The secrets of the last start; each one that is missing is made. */
export function devSecrets(stateDir: string): DevSecrets {
  const kept = DevState.partial().safeParse(readJson(stateDir)).data ?? {};
  return {
    jwt_secret: kept.jwt_secret ?? randomBytes(SECRET_BYTES).toString('base64url'),
    service_secret: kept.service_secret ?? randomBytes(SECRET_BYTES).toString('base64url'),
    demo_password: kept.demo_password ?? randomBytes(PASSWORD_BYTES).toString('base64url'),
  };
}

function readJson(stateDir: string): unknown {
  try {
    return JSON.parse(readFileSync(join(stateDir, FILE), 'utf8'));
  } catch {
    return {};
  }
}
