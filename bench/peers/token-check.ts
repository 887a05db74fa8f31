import { createSecretKey } from 'node:crypto';
import jwt from 'jsonwebtoken';

export interface PeerSettings {
  readonly port: number;
  readonly redisUrl: string;
  readonly secret: string;
  readonly issuer: string;
  readonly audience: string;
}

/** Returns the settings of a peer from its one argument. */
export function peerSettings(): PeerSettings {
  return JSON.parse(process.argv[2] ?? '{}') as PeerSettings;
}

/** Verifies tokens as the gateway does: HS256 with a key object, issuer, audience and times. Returns the user. */
export function tokenCheck({ secret, issuer, audience }: PeerSettings): (token: string) => string {
  const key = createSecretKey(Buffer.from(secret));
  return (token) => {
    const claims = jwt.verify(token, key, { algorithms: ['HS256'], issuer, audience });
    if (typeof claims === 'string' || claims.sub === undefined) throw new Error('no user');
    return claims.sub;
  };
}
