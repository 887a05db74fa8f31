import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { Seal } from '../lib/seal.ts';
import { TollgateError } from '../protocol/errors.ts';

/** Marks the tokens of runs, which are no JWT. */
const PREFIX = 'tgrun_';
/** Audience: the only endpoint that accepts the token. */
const AUDIENCE = 'mcp';

const Claims = z.object({
  aud: z.literal(AUDIENCE),
  /** User and run. */
  sub: z.string(),
  run: z.string(),
  /** Milliseconds since the epoch. */
  iat: z.number(),
  exp: z.number(),
});

/** What a token of a run says. Everything else is read from the run, so that the token is useless once it has ended. */
export interface RunToken {
  readonly userId: string;
  readonly runId: string;
  readonly issuedAt: number;
  readonly expiresAt: number;
}

/**
 * Tokens with which an agent on another server calls tools of the gateway for one run. Encrypted with `SERVICE_SECRET`.
 */
export class RunTokens {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #seal: Seal;

  constructor({ clock }: { readonly clock: Pick<Clock, 'now'> }, secret: string) {
    this.#clock = clock;
    this.#seal = new Seal(secret, 'run token');
  }

  issue({ userId, runId, expiresAt }: Omit<RunToken, 'issuedAt'>): string {
    const claims = { aud: AUDIENCE, sub: userId, run: runId, iat: this.#clock.now(), exp: Math.ceil(expiresAt) };
    return PREFIX + Buffer.from(this.#seal.seal(JSON.stringify(claims)), 'base64').toString('base64url');
  }

  /**
   * Reads the token of an `Authorization` header; undefined if it is none of a run.
   * @throws TollgateError VALIDATION_FAILED, TOKEN_EXPIRED
   */
  read(authorization: string | undefined): RunToken | undefined {
    const token = /^Bearer (tgrun_[\w-]{1,4096})$/i.exec(authorization ?? '')?.[1];
    if (token === undefined) return undefined;
    const bytes = Buffer.from(token.slice(PREFIX.length), 'base64url');
    const opened = this.#seal.open(bytes.toString('base64'));
    const claims = opened === undefined ? undefined : Claims.safeParse(JSON.parse(opened)).data;
    if (!claims) throw new TollgateError('VALIDATION_FAILED');
    if (claims.exp <= this.#clock.now()) throw new TollgateError('TOKEN_EXPIRED', { retryable: false });
    return { userId: claims.sub, runId: claims.run, issuedAt: claims.iat, expiresAt: claims.exp };
  }
}
