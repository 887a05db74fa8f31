import { Ajv } from 'ajv';
import { JSON_SCHEMA } from '../lib/json-schema.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { InputAnswer, InputRequest } from '../protocol/input.ts';

/**
 * Returns an answer in the form in which it is stored: without content, unless it accepts a choice or a form.
 * @throws TollgateError FORMAT_ERROR when the content does not fit the request
 */
export function checkedAnswer(request: InputRequest, { action, content = {} }: InputAnswer): InputAnswer {
  if (action !== 'accept' || request.kind === 'approval') return { action };
  const schema = request.kind === 'form' ? request.schema : choiceSchema(request.choices);
  const ajv = new Ajv({ ...JSON_SCHEMA, strict: false });
  const isValid = ajv.compile({ ...schema, additionalProperties: false });
  if (isValid(content)) return { action, content };
  throw new TollgateError('FORMAT_ERROR', {
    text: `The answer does not fit the request: ${ajv.errorsText(isValid.errors, { dataVar: 'content' })}.`,
    fields: { field: 'content' },
  });
}

function choiceSchema(choices: readonly string[]) {
  return { type: 'object', properties: { choice: { enum: choices } }, required: ['choice'] } as const;
}
