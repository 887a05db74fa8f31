import { createHmac } from 'node:crypto';
import { stack } from './stack.ts';
import { mintToken } from './tokens.ts';

/** A part of a token: an object, or its literal text. */
export type TokenPart = Readonly<Record<string, unknown>> | readonly unknown[] | string | Buffer;

export interface ForgedToken {
  readonly header?: TokenPart;
  readonly payload?: TokenPart;
  /** Signs the first two parts; by default a valid HS256 signature with the shared stack's secret. */
  readonly sign?: (text: string) => string | Buffer;
}

const HS256 = { alg: 'HS256', typ: 'JWT' };

/** Returns the claims of a fresh user with these changes; `undefined` removes a claim. */
export function claimsWith(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const all = { ...mintToken().claims, ...changes };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** Returns a token that no library would sign: any header, payload and signature. */
export function forgeToken({ header = HS256, payload = claimsWith(), sign = hs256() }: ForgedToken = {}): string {
  const text = `${encoded(header)}.${encoded(payload)}`;
  return `${text}.${Buffer.from(sign(text)).toString('base64url')}`;
}

/** Returns a signer with the shared stack's key, or another one. */
export function hs256(key: string | Buffer = stack().secrets.jwt): (text: string) => Buffer {
  return (text) => createHmac('sha256', key).update(text).digest();
}

export function base64url(text: string | Buffer): string {
  return Buffer.from(text).toString('base64url');
}

function encoded(part: TokenPart): string {
  return base64url(typeof part === 'string' || Buffer.isBuffer(part) ? part : JSON.stringify(part));
}
