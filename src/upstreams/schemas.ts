import { Ajv, type Options, type ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { SyncDeadline } from '../lib/sync-deadline.ts';

/** A schema of this size describes more arguments than any model fills in. */
const MAX_SCHEMA_BYTES = 32 * 1024;
/** Long beside what sound schemas take (microseconds, or a few milliseconds the first time), short beside a heartbeat. */
const COMPILE_MS = 250;
const VALIDATE_MS = 50;
const MAX_PROBLEM_CHARS = 500;
/** Without these, a check takes time in proportion to schema and value. */
const CAN_BE_SLOW = /"(\$ref|\$dynamicRef|pattern|patternProperties|uniqueItems|anyOf|oneOf|allOf|contains)"/;

/** What is wrong with a value, as one sentence; undefined when nothing is. */
export type Check = (value: unknown) => string | undefined;
export type JsonSchema = Readonly<Record<string, unknown>>;

/**
 * JSON Schemas of servers that may mean no good: bounded in size and in time, to compile and to check. References to other
 * documents are not followed.
 */
export class Schemas {
  readonly #deadline = new SyncDeadline();
  readonly #draft07: Ajv;
  readonly #draft2020: Ajv;

  constructor() {
    // `inlineRefs` would let a schema grow exponentially in the code that is made of it.
    const options: Options = { strict: false, validateFormats: false, addUsedSchema: false, inlineRefs: false };
    this.#draft07 = new Ajv(options);
    this.#draft2020 = new Ajv2020(options);
  }

  /** @throws Error saying what is wrong with the schema */
  compile(schema: JsonSchema): Check {
    const json = JSON.stringify(schema);
    if (json.length > MAX_SCHEMA_BYTES) throw new Error(`larger than ${MAX_SCHEMA_BYTES} bytes`);
    const ajv = /draft-0[467]/.test(String(schema.$schema)) ? this.#draft07 : this.#draft2020;
    // A copy: what ajv keeps of it goes again, whatever becomes of the original.
    const own = JSON.parse(json) as JsonSchema;
    try {
      const validate = this.#deadline.run(COMPILE_MS, () => ajv.compile(own));
      const check = checkOf(ajv, validate);
      return CAN_BE_SLOW.test(json) ? (value) => this.#bounded(check, value) : check;
    } finally {
      ajv.removeSchema(own);
    }
  }

  #bounded(check: Check, value: unknown): string | undefined {
    try {
      return this.#deadline.run(VALIDATE_MS, () => check(value));
    } catch {
      return 'cannot be checked: the schema takes too long, or too deep';
    }
  }
}

function checkOf(ajv: Ajv, validate: ValidateFunction): Check {
  return (value) => {
    if (validate(value)) return undefined;
    return ajv.errorsText(validate.errors, { dataVar: 'arguments' }).slice(0, MAX_PROBLEM_CHARS);
  };
}
