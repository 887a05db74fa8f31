const CR = 13;
const LF = 10;
const PUSH = 62;
/** Types whose head states the number of values or bytes that follow, as character codes: * $ ~ > % = ! */
const AGGREGATES = new Map([
  [42, 1],
  [126, 1],
  [PUSH, 1],
  [37, 2],
]);
const BULKS: ReadonlySet<number> = new Set([36, 61, 33]);
const INCOMPLETE = -1;

/** One complete value of a RESP stream. */
export interface RespValue {
  readonly bytes: number;
  /** Whether Redis sent it by itself: a published message, or the answer to a (un)subscription in RESP3. */
  readonly isPush: boolean;
  readonly text: () => string;
}

/** Splits a stream of replies (RESP2 and RESP3) into values, without decoding them. */
export class ReplySplitter {
  readonly #found: (value: RespValue) => void;
  #rest: Buffer = Buffer.alloc(0);

  constructor(found: (value: RespValue) => void) {
    this.#found = found;
  }

  feed(bytes: Buffer): void {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    let at = 0;
    for (;;) {
      const end = valueEnd(this.#rest, at);
      if (end === INCOMPLETE) break;
      const value = this.#rest.subarray(at, end);
      this.#found({ bytes: value.length, isPush: value[0] === PUSH, text: () => value.toString('latin1') });
      at = end;
    }
    this.#rest = this.#rest.subarray(at);
  }
}

/** Returns the position after the value that starts at `at`. */
function valueEnd(buffer: Buffer, at: number): number {
  let [position, open] = [at, 1];
  while (open > 0) {
    const end = lineEnd(buffer, position);
    if (end === INCOMPLETE) return INCOMPLETE;
    const type = buffer[position] ?? 0;
    const perEntry = AGGREGATES.get(type);
    open -= 1;
    // A negative length is a null of RESP2.
    const length = perEntry || BULKS.has(type) ? Math.max(0, numberIn(buffer, position, end)) : 0;
    if (perEntry) open += perEntry * length;
    const isNull = BULKS.has(type) && buffer[position + 1] === 45;
    position = BULKS.has(type) && !isNull ? end + length + 2 : end;
    if (position > buffer.length) return INCOMPLETE;
  }
  return position;
}

function lineEnd(buffer: Buffer, at: number): number {
  const end = buffer.indexOf(LF, at);
  return end > at && buffer[end - 1] === CR ? end + 1 : INCOMPLETE;
}

function numberIn(buffer: Buffer, at: number, end: number): number {
  return Number(buffer.toString('latin1', at + 1, end - 2));
}
