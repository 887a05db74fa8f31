/**
 * Length and hash of a text that is read in pieces, without white space: an agent trims its answer. It decides whether
 * two texts of an agent are the same without keeping the first one.
 */
export interface Digest {
  readonly length: number;
  /** Two polynomial hashes modulo primes below 2^26, so that every product is an exact number. */
  readonly low: number;
  readonly high: number;
}

export const EMPTY_DIGEST: Digest = { length: 0, low: 0, high: 0 };

const WHITE_SPACE = /\s/g;
const LOW = { base: 65_599, modulus: 67_108_859 };
const HIGH = { base: 65_701, modulus: 67_108_837 };

export function addText({ length, low, high }: Digest, piece: string): Digest {
  const compact = piece.replaceAll(WHITE_SPACE, '');
  let [a, b] = [low, high];
  for (let at = 0; at < compact.length; at++) {
    const unit = compact.charCodeAt(at) + 1;
    a = (a * LOW.base + unit) % LOW.modulus;
    b = (b * HIGH.base + unit) % HIGH.modulus;
  }
  return { length: length + compact.length, low: a, high: b };
}

export function isDigestOf(digest: Digest, text: string): boolean {
  const { length, low, high } = addText(EMPTY_DIGEST, text);
  return length === digest.length && low === digest.low && high === digest.high;
}
