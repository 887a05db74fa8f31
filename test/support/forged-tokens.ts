import { createHmac } from 'node:crypto';
import { stack } from './stack.ts';
import { mintToken } from './tokens.ts';

/** A part of a token: an object, or the very text that is to stand in it. */
export type TokenPart = Readonly<Record<string, unknown>> | readonly unknown[] | string | Buffer;

export interface ForgedToken {
  readonly header?: TokenPart;
  readonly payload?: TokenPart;
  /** Over the first two parts; by default the HS256 signature of the shared stack's secret, which fits. */
  readonly sign?: (text: string) => string | Buffer;
}

const HS256 = { alg: 'HS256', typ: 'JWT' };

/** The claims of a fresh user, with these in place of theirs; one given as `undefined` is left out. */
export function claimsWith(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const all = { ...mintToken().claims, ...changes };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** A token that no library signs: any header, any payload, any signature. */
export function forgeToken({ header = HS256, payload = claimsWith(), sign = hs256() }: ForgedToken = {}): string {
  const text = `${encoded(header)}.${encoded(payload)}`;
  return `${text}.${Buffer.from(sign(text)).toString('base64url')}`;
}

/** The shared stack's own signature, or one by another key. */
export function hs256(key: string | Buffer = stack().secrets.jwt): (text: string) => Buffer {
  return (text) => createHmac('sha256', key).update(text).digest();
}

export function base64url(text: string | Buffer): string {
  return Buffer.from(text).toString('base64url');
}

function encoded(part: TokenPart): string {
  return base64url(typeof part === 'string' || Buffer.isBuffer(part) ? part : JSON.stringify(part));
}
