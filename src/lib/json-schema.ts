import type { Options } from 'ajv';

/**
 * Options that make Ajv keep to JSON Schema where it deviates by default:
 * - `ownProperties`: a property named `constructor` or `toString` is absent unless the value has it.
 * - `multipleOfPrecision`: 19.99 is a multiple of 0.01, although the quotient of the two binary numbers is not an
 *   integer. A deviation of the quotient up to 10⁻⁶ counts as rounding.
 */
export const JSON_SCHEMA: Options = { ownProperties: true, multipleOfPrecision: 6 };
