import { describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { TollgateError } from '../../src/protocol/errors.ts';
import { CLIENT_MESSAGES, type ClientMessageType } from '../../src/protocol/messages.ts';
import { parseFields } from '../../src/protocol/parse-fields.ts';

/** Parses, or returns the error. */
function outcome(schema: z.ZodType, input: unknown): unknown {
  try {
    return parseFields(schema, input);
  } catch (error) {
    if (error instanceof TollgateError) return { code: error.code, field: error.fields.field };
    throw error;
  }
}

/** A complete message of each type that has required fields. */
const REQUIRED: Partial<Record<ClientMessageType, Record<string, unknown>>> = {
  agent_request: { message: 'Hello' },
  agent_cancel: { run_id: 'run_1' },
  run_status: { run_id: 'run_1' },
  input_response: { run_id: 'run_1', input_id: 'input_1', action: 'accept' },
  tool_call: { tool: 'list_agents' },
  thread_history: { thread_id: 'thread_1' },
  resume: { after: 0, epoch: 'epoch_1' },
};

describe.each(Object.keys(CLIENT_MESSAGES) as ClientMessageType[])('the message %s', (type) => {
  const { fields } = CLIENT_MESSAGES[type];
  const required = REQUIRED[type] ?? {};
  const optional = Object.keys(fields.shape).filter((name) => !(name in required));
  const allNull = Object.fromEntries(optional.map((name) => [name, null]));

  it('means the same with null for every field that is not set', () => {
    expect(parseFields(fields, { ...required, ...allNull })).toEqual(parseFields(fields, required));
  });

  it('requires its required fields, also when they are null', () => {
    for (const name of Object.keys(required)) {
      const expected = { code: 'FORMAT_ERROR', field: name };
      expect(outcome(fields, { ...required, [name]: null })).toEqual(expected);
      expect(outcome(fields, { ...required, [name]: undefined })).toEqual(expected);
    }
  });
});

describe('nulls', () => {
  it('within tool arguments and other free JSON are kept', () => {
    const args = { a: null, deep: { b: null }, list: [null, { c: null }] };
    const call = parseFields(CLIENT_MESSAGES.tool_call.fields, { tool: 't', arguments: args, request_id: null });
    expect(call).toEqual({ tool: 't', arguments: args });
  });

  it('that a field accepts are kept', () => {
    const schema = z.object({ free: z.unknown(), none: z.string().nullable(), text: z.string().optional() });
    expect(parseFields(schema, { free: null, none: null, text: null })).toEqual({ free: null, none: null });
  });

  it('for the fields of the other forms of a union count as missing', () => {
    const schema = z.union([z.strictObject({ a: z.string() }), z.strictObject({ b: z.string() })]);
    expect(parseFields(schema, { a: 'x', b: null })).toEqual({ a: 'x' });
    expect(outcome(schema, { a: null, b: null })).toMatchObject({ code: 'FORMAT_ERROR' });
  });

  it('in nested objects and in an optional body count as missing', () => {
    const schema = z.object({ inner: z.object({ text: z.string().default('d') }).optional() }).nullish();
    expect(parseFields(schema, { inner: { text: null } })).toEqual({ inner: { text: 'd' } });
    expect(parseFields(schema, null)).toBeNull();
  });

  it('do not let an unknown field through', () => {
    expect(outcome(z.strictObject({ a: z.string() }), { a: 'x', extra: null })).toMatchObject({ code: 'FORMAT_ERROR' });
    expect(outcome(z.strictObject({}), JSON.parse('{"__proto__":null}'))).toMatchObject({ code: 'FORMAT_ERROR' });
  });
});
