import type { Random } from './random.ts';

/** Bytes and words that parsers treat differently from others. */
const BYTES = [0, 9, 10, 13, 0x1e, 0x20, 0x22, 0x27, 0x2c, 0x2e, 0x2f, 0x3a, 0x3b, 0x3d, 0x5b, 0x5c, 0x5d, 0x7b, 0x7d];
const WORDS = ['null', 'true', '-0', '1e400', '9007199254740993', '""', '{}', '[]', '__proto__', 'constructor'];
const MORE_WORDS = ['\\ud800', '\\u0000', '\ufeff', 'é', '😀', '%00', '%2e', '//', '..', '::', '0x', 'NaN', '\r\n'];
const VALUES: readonly unknown[] = [null, true, -1, 0, 1.5, 1e308, '', 'x', '\ud800', [], {}, [[]], { a: {} }];
const MAX_MUTATIONS = 5;
/** Factor of a repetition; a repeated part shows what is not linear. */
const MAX_REPETITIONS = 4_096;

export interface MutationOptions {
  readonly words: readonly (string | Buffer)[];
  readonly maxBytes: number;
  /** An input to combine with. */
  readonly other: Buffer;
}

/** Returns a changed copy. */
export function mutated(random: Random, input: Buffer, options: MutationOptions): Buffer {
  let result = input;
  for (let at = 0; at <= random.below(MAX_MUTATIONS); at++) {
    // JSON keeps its form in half of the mutations, so that they get beyond its parser.
    result = (random.below(2) === 0 && jsonMutated(random, result, options)) || bytesMutated(random, result, options);
  }
  return result.subarray(0, options.maxBytes);
}

function bytesMutated(random: Random, input: Buffer, { words, maxBytes, other }: MutationOptions): Buffer {
  const at = random.below(input.length + 1);
  const end = Math.min(input.length, at + 1 + random.below(16));
  const replaced = (middle: Uint8Array | readonly number[] | string, until = at) => {
    const inserted = typeof middle === 'string' ? Buffer.from(middle) : Buffer.from(middle);
    return Buffer.concat([input.subarray(0, at), inserted, input.subarray(until)]);
  };
  switch (random.below(9)) {
    case 0:
      return replaced([random.below(256)], at + 1);
    case 1:
      return replaced([random.pick(BYTES)], at + random.below(2));
    case 2:
      return replaced('', end);
    case 3:
      return replaced(random.pick([...WORDS, ...MORE_WORDS, ...words, ...words]), random.below(2) === 0 ? at : end);
    case 4:
      return replaced(input.subarray(at, end));
    case 5: {
      const part = input.subarray(at, end);
      const times = Math.min(1 + random.below(MAX_REPETITIONS), Math.floor(maxBytes / (part.length || 1)));
      return replaced(Buffer.concat(Array<Buffer>(random.below(8) === 0 ? times : times % 16).fill(part)));
    }
    case 6:
      return replaced([(input[at] ?? 0) ^ (1 << random.below(8))], at + 1);
    case 7:
      return Buffer.concat([input.subarray(0, at), other.subarray(random.below(other.length + 1))]);
    default:
      return replaced(String(random.pick([0, 1, -1, 127, 255, 256, 65_535, 2 ** 31, 2 ** 53])), end);
  }
}

/** Changes one value of a JSON text; undefined for other text. */
function jsonMutated(random: Random, input: Buffer, { words, other }: MutationOptions): Buffer | undefined {
  const root: unknown = parsed(input);
  if (typeof root !== 'object' || root === null) return undefined;
  const holder = random.pick(holders(root));
  const keys = Object.keys(holder);
  const key = keys.length === 0 ? '0' : random.pick(keys);
  const own: unknown = Reflect.get(holder, key);
  const word = String(random.pick([...words, ...WORDS]));
  switch (random.below(5)) {
    case 0:
      Reflect.set(holder, key, random.pick([...VALUES, word, word, word]));
      break;
    case 1:
      Reflect.deleteProperty(holder, key);
      break;
    case 2:
      Reflect.set(holder, key, parsed(other) ?? {});
      break;
    case 3:
      Reflect.set(holder, Array.isArray(holder) ? String(holder.length) : word, own);
      break;
    default:
      Reflect.set(holder, key, typeof own === 'string' ? own.repeat(1 + random.below(64)) : [own]);
  }
  return Buffer.from(JSON.stringify(root) ?? '');
}

function parsed(input: Buffer): unknown {
  try {
    return JSON.parse(input.toString('utf8'));
  } catch {
    return undefined;
  }
}

const MAX_HOLDERS = 64;

/** The objects and lists in a value. */
function holders(root: object): object[] {
  const found = [root];
  for (let at = 0; at < found.length && found.length < MAX_HOLDERS; at++) {
    for (const value of Object.values(found[at] ?? {}))
      if (typeof value === 'object' && value !== null) found.push(value);
  }
  return found;
}
