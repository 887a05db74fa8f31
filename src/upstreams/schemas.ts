import { Ajv, type Options, type ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { linearPattern, NotLinear, type Pattern } from '../lib/linear-patterns.ts';
import { SyncDeadline } from '../lib/sync-deadline.ts';

/** A schema of this size describes more arguments than any model fills in. */
const MAX_SCHEMA_BYTES = 32 * 1024;
/**
 * Sound schemas take a few milliseconds to compile and microseconds to check, on a machine that has nothing else to do: the
 * time is that of the wall, and ten times as much may pass on a busy one. For so long the process does nothing else.
 */
const COMPILE_MS = 1_000;
const CHECK_MS = 200;
/** A check that has taken too long so often is not made any more. */
const MAX_LATE = 3;
const MAX_PROBLEM_CHARS = 500;
/** Characters of a string that is matched against a pattern which cannot be matched in linear time. */
const MAX_BACKTRACKING_LENGTH = 1_024;
/** Without these, a check takes time in proportion to schema and value. */
const CAN_BE_SLOW = /"(\$ref|\$dynamicRef|pattern|patternProperties|uniqueItems|anyOf|oneOf|allOf|contains)"/;

/** What is wrong with a value, as one sentence; undefined when nothing is. @throws Unchecked when that takes too long */
export type Check = (value: unknown) => string | undefined;
export type JsonSchema = Readonly<Record<string, unknown>>;

/** Nothing can be said in time. */
export class Unchecked extends Error {}

/** The schema took too long to compile: it may be sound, and the machine busy. */
export class CompiledTooLong extends Error {}

/**
 * JSON Schemas of servers that may mean no good: bounded in size and in time, to compile and to check. References to other
 * documents are not followed.
 */
export class Schemas {
  readonly #deadline = new SyncDeadline();
  #draft07: Ajv | undefined;
  #draft2020: Ajv | undefined;

  /** @throws Error saying what is wrong with the schema */
  compile(schema: JsonSchema): Check {
    const json = JSON.stringify(schema);
    if (json.length > MAX_SCHEMA_BYTES) throw new Error(`larger than ${MAX_SCHEMA_BYTES} bytes`);
    const ajv = this.#compilerOf(schema);
    // A copy: what ajv keeps of it goes again, whatever becomes of the original.
    const own = JSON.parse(json) as JsonSchema;
    try {
      const check = checkOf(
        ajv,
        this.#deadline.run(COMPILE_MS, () => ajv.compile(own)),
      );
      return CAN_BE_SLOW.test(json) ? this.#bounded(check) : check;
    } catch (error) {
      if (!isLate(error)) throw error;
      // Stopped in the middle, it would compile nothing any more.
      this.#draft07 = this.#draft2020 = undefined;
      throw new CompiledTooLong(`takes longer than ${COMPILE_MS} ms to compile`);
    } finally {
      ajv.removeSchema(own);
    }
  }

  #compilerOf({ $schema }: JsonSchema): Ajv {
    // `inlineRefs` would let a schema grow exponentially in the code that is made of it.
    const options: Options = {
      strict: false,
      validateFormats: false,
      addUsedSchema: false,
      inlineRefs: false,
      code: { regExp: Object.assign(patternOf, { code: 'patternOf' }) },
    };
    const old = /draft-0[467]/.test(String($schema));
    if (old) this.#draft07 ??= warm(new Ajv(options));
    else this.#draft2020 ??= warm(new Ajv2020(options));
    const ajv = old ? this.#draft07 : this.#draft2020;
    if (!ajv) throw new Error('there is no compiler');
    return ajv;
  }

  #bounded(check: Check): Check {
    let late = 0;
    return (value) => {
      if (late >= MAX_LATE) throw new Unchecked();
      try {
        return this.#deadline.run(CHECK_MS, () => check(value));
      } catch (error) {
        if (!(error instanceof Unchecked)) late += 1;
        throw new Unchecked();
      }
    };
  }
}

/**
 * A pattern in linear time where it has no lookaround and no back reference. The others occur in sound schemas (that of
 * an email address from zod, for one): they backtrack, within the deadline of the check, over short strings only.
 */
function patternOf(source: string): Pattern {
  try {
    return linearPattern(source);
  } catch (error) {
    if (!(error instanceof NotLinear)) throw error;
    const backtracking = new RegExp(source, 'u');
    const test = (text: string) => {
      if (text.length > MAX_BACKTRACKING_LENGTH) throw new Unchecked();
      return backtracking.test(text);
    };
    return { test, toString: () => `backtracking:${source}` };
  }
}

/** Compiles the schema of schemas, outside of any deadline: it is ours, and takes longer than most. */
function warm(ajv: Ajv): Ajv {
  ajv.validateSchema({ type: 'object' });
  return ajv;
}

function isLate(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT';
}

function checkOf(ajv: Ajv, validate: ValidateFunction): Check {
  return (value) => {
    if (validate(value)) return undefined;
    return ajv.errorsText(validate.errors, { dataVar: 'arguments' }).slice(0, MAX_PROBLEM_CHARS);
  };
}
