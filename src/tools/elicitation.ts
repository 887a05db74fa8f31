import { isObject } from '../lib/json.ts';
import { formOf } from '../protocol/forms.ts';
import type { InputOutcome, InputRequest } from '../protocol/input.ts';
import type { ToolInputRequests } from './tool.ts';

/** Characters of a message. */
const MESSAGE_LENGTH = 2_000;

/** A form that the server of a tool requests, under the key of its answer. */
export interface Elicited {
  readonly key: string;
  readonly request: InputRequest;
}

/** The forms of a round; none if one of its requests is no form that Tollgate can show. */
export function elicitedForms({ inputRequests }: ToolInputRequests): readonly Elicited[] {
  const forms = Object.entries(inputRequests).map(([key, value]) => {
    const { message, requestedSchema } = isObject(value) && isObject(value.params) ? value.params : {};
    const schema = formOf(requestedSchema);
    const text = typeof message === 'string' ? message.slice(0, MESSAGE_LENGTH).toWellFormed() : '';
    return schema && { key, request: { kind: 'form' as const, message: text || 'The tool needs an answer.', schema } };
  });
  const known = forms.filter((form) => form !== undefined);
  return known.length === forms.length ? known : [];
}

/** The answer in the form of MCP. */
export function elicitationResult({ action, content }: InputOutcome) {
  if (action === 'accept') return { action, content: content ?? {} };
  return { action: action === 'decline' ? action : ('cancel' as const) };
}
