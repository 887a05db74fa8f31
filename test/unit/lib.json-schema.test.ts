import { describe, expect, it } from '@jest/globals';
import { checkedAnswer } from '../../src/runs/input-answer.ts';
import { Schemas } from '../../src/upstreams/schemas.ts';

const PROPERTIES = { price: { type: 'number', multipleOf: 0.01 }, constructor: { type: 'string' } };
const VALID: readonly Record<string, unknown>[] = [
  {},
  { price: 19.99 },
  { price: 4.35 },
  { price: 1_234_567.89 },
  { price: 0 },
  { constructor: 'Tollgate' },
];
const INVALID: readonly Record<string, unknown>[] = [{ price: 19.999 }, { price: 0.001 }, { constructor: 7 }];

describe.each([
  'http://json-schema.org/draft-07/schema#',
  'https://json-schema.org/draft/2019-09/schema',
  'https://json-schema.org/draft/2020-12/schema',
])('a schema of a tool in %s', ($schema) => {
  const check = new Schemas().compile({ $schema, type: 'object', properties: PROPERTIES }, 10_000);

  it.each(VALID)('accepts %j', (value) => {
    expect(check?.(value)).toBeUndefined();
  });

  it.each(INVALID)('rejects %j', (value) => {
    expect(check?.(value)).toMatch(/^arguments\/(price|constructor) must be/);
  });
});

it('names a schema of a tool that is nested too deeply, and compiles the next one', () => {
  const schemas = new Schemas();
  const $schema = 'https://json-schema.org/draft/2020-12/schema';
  let deep: Record<string, unknown> = { type: 'object' };
  for (let level = 0; level < 1_000; level++) deep = { allOf: [deep] };
  expect(() => schemas.compile({ $schema, ...deep }, 100_000)).toThrow(/nested too deeply/);
  const check = schemas.compile({ $schema, type: 'object', properties: PROPERTIES }, 10_000);
  expect(check?.({ price: 'high' })).toMatch(/price must be number/);
});

describe('a form that a run sends to its user', () => {
  const schema = { type: 'object', properties: PROPERTIES };
  const request = { kind: 'form', schema } as unknown as Parameters<typeof checkedAnswer>[0];

  it.each(VALID)('accepts %j', (content) => {
    expect(checkedAnswer(request, { action: 'accept', content })).toEqual({ action: 'accept', content });
  });

  it.each(INVALID)('rejects %j', (content) => {
    expect(() => checkedAnswer(request, { action: 'accept', content })).toThrow(/must be/);
  });
});
