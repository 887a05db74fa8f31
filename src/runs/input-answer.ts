import { Ajv } from 'ajv';
import { JSON_SCHEMA } from '../lib/json-schema.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { InputAnswer, InputRequest } from '../protocol/input.ts';

/** Of the result of a tool, as JSON: an event contains it. */
const RESULT_CHARACTERS = 65_536;
/** `result` is any JSON; `error` a sentence for the agent. */
const TOOL_SCHEMA = {
  type: 'object',
  properties: { result: {}, error: { type: 'string', maxLength: 2_000 } },
  minProperties: 1,
  maxProperties: 1,
} as const;

/**
 * Returns an answer in the form in which it is stored: without content, unless it accepts a choice, a form or a tool.
 * @throws TollgateError FORMAT_ERROR when the content does not fit the request
 */
export function checkedAnswer(request: InputRequest, { action, content = {} }: InputAnswer): InputAnswer {
  if (action !== 'accept' || request.kind === 'approval') return { action };
  const schema = schemaOf(request);
  // `FormSchema` has validated the schema. To validate it again, Ajv would compile its meta-schema for each answer.
  const ajv = new Ajv({ ...JSON_SCHEMA, strict: false, validateSchema: false });
  const isValid = ajv.compile({ ...schema, additionalProperties: false });
  if (request.kind === 'tool') checkSize(content);
  if (isValid(content)) return { action, content };
  throw new TollgateError('FORMAT_ERROR', {
    text: `The answer does not fit the request: ${ajv.errorsText(isValid.errors, { dataVar: 'content' })}.`,
    fields: { field: 'content' },
  });
}

function schemaOf(request: Exclude<InputRequest, { readonly kind: 'approval' }>) {
  if (request.kind === 'tool') return TOOL_SCHEMA;
  return request.kind === 'form' ? request.schema : choiceSchema(request.choices);
}

/** @throws TollgateError FORMAT_ERROR */
function checkSize(content: InputAnswer['content']): void {
  if (JSON.stringify(content).length <= RESULT_CHARACTERS) return;
  throw new TollgateError('FORMAT_ERROR', {
    text: `The result of a tool may have ${RESULT_CHARACTERS} characters of JSON.`,
    fields: { field: 'content' },
  });
}

function choiceSchema(choices: readonly string[]) {
  return { type: 'object', properties: { choice: { enum: choices } }, required: ['choice'] } as const;
}
