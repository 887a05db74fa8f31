import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

/**
 * State of the deployment that `npm start` runs on this machine, for its next start and for `npm run chat`, `npm run
 * bill` and `npm run load`. Secrets stay the same across starts, because tokens and stored hashes depend on them.
 */
const DevState = z.object({
  /** HAProxy in front of the gateways; missing without one. */
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
/** 72 bits: short enough to type. */
const PASSWORD_BYTES = 9;

export function readDevState(stateDir: string): DevState | undefined {
  return DevState.safeParse(readJson(stateDir)).data;
}

export function writeDevState(stateDir: string, state: DevState): void {
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  const file = join(stateDir, FILE);
  // Renamed into place, so that a reader never finds half a file. The mode applies from the first byte.
  writeFileSync(`${file}.new`, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** Returns the secrets of the last start and generates missing ones. */
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
