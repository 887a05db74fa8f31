import { Ajv, type Options, type ValidateFunction } from 'ajv';
import { Ajv2019 } from 'ajv/dist/2019.js';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { JSON_SCHEMA } from '../lib/json-schema.ts';
import { linearPattern, NotLinear, type Pattern } from '../lib/linear-patterns.ts';
import { SyncDeadline } from '../lib/sync-deadline.ts';

/**
 * Timeouts of compiling a schema and of one check, during which the process is blocked. On an idle machine, valid
 * schemas take a few milliseconds to compile and microseconds to check. The timeouts are wall-clock time, which can be
 * ten times as long on a busy machine.
 */
const COMPILE_MS = 1_000;
const CHECK_MS = 200;
/** Number of timeouts after which a check is disabled. */
const MAX_LATE = 3;
const MAX_PROBLEM_CHARS = 500;
/** Maximum length of a string that is matched against a backtracking pattern. */
const MAX_BACKTRACKING_LENGTH = 1_024;
/** Keywords that can make a check slow. Without them, its time is proportional to schema and value. */
const CAN_BE_SLOW = /"(\$ref|\$dynamicRef|pattern|patternProperties|uniqueItems|anyOf|oneOf|allOf|contains)"/;

/** Returns the problem of a value as one sentence; undefined for a valid value. @throws Unchecked after a timeout */
export type Check = (value: unknown) => string | undefined;
export type JsonSchema = Readonly<Record<string, unknown>>;

const COMPILERS = { 'draft-07': Ajv, '2019-09': Ajv2019, '2020-12': Ajv2020 } as const;
type Dialect = keyof typeof COMPILERS;

/** Keywords of draft-03 and draft-04 with values that later drafts do not allow. */
const OLD_KEYWORDS = /"(exclusiveMinimum|exclusiveMaximum|required)":(true|false)/;

/**
 * Returns the dialects to compile a schema in, the likeliest first, and whether one of them is exactly that of the
 * schema. Most schemas of draft-04 and draft-06 mean the same in draft-07; one that does not compile there is left to
 * its server.
 */
function dialectsOf({ $schema }: JsonSchema, json: string): { dialects: readonly Dialect[]; isExact: boolean } {
  const address = typeof $schema === 'string' ? $schema : '';
  if (address.includes('2020-12')) return { dialects: ['2020-12'], isExact: true };
  if (address.includes('2019-09')) return { dialects: ['2019-09'], isExact: true };
  if (address.includes('draft-07') || address.includes('draft-06')) return { dialects: ['draft-07'], isExact: true };
  if (address.includes('draft-0')) return { dialects: ['draft-07'], isExact: false };
  // MCP names 2020-12 as the default; schemas of draft-07 without `$schema` are as common.
  return { dialects: ['2020-12', 'draft-07'], isExact: address === '' && !OLD_KEYWORDS.test(json) };
}

/** The check took too long or is disabled, so the value is neither valid nor invalid. */
export class Unchecked extends Error {}

/** The schema took too long to compile. It may still be valid, if the machine was busy. */
export class CompiledTooLong extends Error {}

/**
 * Compiles untrusted JSON Schemas of tool servers. Compilation and checks are bounded in size and time. References to
 * other documents are not followed.
 */
export class Schemas {
  readonly #deadline = new SyncDeadline();
  readonly #compilers = new Map<Dialect, Ajv>();

  /**
   * Compiles a schema of any draft. Returns undefined for a valid schema of a dialect that is not supported: its server
   * checks the values.
   * @throws Error with the problem of the schema; CompiledTooLong after a timeout
   */
  compile(schema: JsonSchema, maxBytes: number): Check | undefined {
    const json = JSON.stringify(schema);
    if (Buffer.byteLength(json) > maxBytes) throw new Error(`larger than ${maxBytes} bytes`);
    const { dialects, isExact } = dialectsOf(schema, json);
    const problems: unknown[] = [];
    for (const dialect of dialects) {
      try {
        return this.#compile(dialect, json);
      } catch (error) {
        if (error instanceof CompiledTooLong) throw error;
        problems.push(error);
      }
    }
    if (isExact) throw problems[0];
    return undefined;
  }

  #compile(dialect: Dialect, json: string): Check {
    const ajv = this.#compilerOf(dialect);
    // A private copy: ajv caches by object identity, and `removeSchema` must remove the same object. Without `$schema`,
    // because ajv finds each meta-schema by one spelling of its address only.
    const { $schema: _dialect, ...own } = JSON.parse(json) as JsonSchema;
    try {
      const check = checkOf(
        ajv,
        this.#deadline.run(COMPILE_MS, () => ajv.compile(own)),
      );
      return CAN_BE_SLOW.test(json) ? this.#bounded(check) : check;
    } catch (error) {
      if (!isLate(error) && !(error instanceof RangeError)) throw error;
      // An interrupted ajv instance cannot compile any further schema.
      this.#compilers.clear();
      // The stack overflows.
      if (error instanceof RangeError) throw new Error('it is nested too deeply, or a reference leads back to itself');
      throw new CompiledTooLong(`takes longer than ${COMPILE_MS} ms to compile`);
    } finally {
      ajv.removeSchema(own);
    }
  }

  #compilerOf(dialect: Dialect): Ajv {
    const existing = this.#compilers.get(dialect);
    if (existing) return existing;
    // With `inlineRefs`, the generated code could grow exponentially with the schema.
    const options: Options = {
      ...JSON_SCHEMA,
      strict: false,
      validateFormats: false,
      addUsedSchema: false,
      inlineRefs: false,
      code: { regExp: Object.assign(patternOf, { code: 'patternOf' }) },
    };
    const Compiler = COMPILERS[dialect];
    const ajv = warm(new Compiler(options));
    this.#compilers.set(dialect, ajv);
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
 * Returns a pattern that matches in linear time, if the source has no lookaround and no back reference. Other patterns
 * occur in valid schemas, for example in zod's email schema. They backtrack, so they are limited to short strings and
 * to the timeout of the check.
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

/** Compiles the meta-schema without a timeout: it is trusted and takes longer than most schemas. */
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
