import { FormSchema, type InputOutcome, type InputRequest } from './input.ts';
import { isFields } from './messages.ts';

const MESSAGE_LENGTH = 2_000;
const LABEL_LENGTH = 200;
const TEXT_LENGTH = 8_000;

/** A request without a schema is answered with one text. */
export const FREE_TEXT: FormSchema = {
  type: 'object',
  properties: { answer: { type: 'string', maxLength: TEXT_LENGTH } },
  required: ['answer'],
};

/** What another protocol asks for, in the form of Tollgate. */
export interface ForeignRequest {
  readonly request: InputRequest;
  /** Returns the content of an accepted answer in the form that the other protocol asked for. */
  contentOf(answer: InputOutcome): unknown;
}

/**
 * Converts a request of another protocol. A schema with the one property `approved` (boolean) is an approval; one that
 * a form can express is a form; for any other there is a form with one text.
 * @param schema JSON Schema; undefined for any answer
 */
export function foreignRequest(text: unknown, schema: unknown): ForeignRequest {
  const message = bounded(text, MESSAGE_LENGTH) ?? 'The agent needs an answer.';
  if (isApproval(schema)) {
    const contentOf = ({ action }: InputOutcome) => ({ approved: action === 'accept' });
    return { request: { kind: 'approval', message }, contentOf };
  }
  const form = formOf(schema);
  if (form) return { request: { kind: 'form', message, schema: form }, contentOf: ({ content }) => content ?? {} };
  return { request: { kind: 'form', message, schema: FREE_TEXT }, contentOf: ({ content }) => content?.answer ?? '' };
}

function isApproval(schema: unknown): boolean {
  const properties = isFields(schema) && isFields(schema.properties) ? schema.properties : {};
  const { approved, ...others } = properties;
  return isFields(approved) && approved.type === 'boolean' && Object.keys(others).length === 0;
}

/** Returns a schema as a form, without the keywords that a form does not have; undefined if it is none. */
export function formOf(schema: unknown): FormSchema | undefined {
  if (!isFields(schema) || schema.type !== 'object' || !isFields(schema.properties)) return undefined;
  const properties = Object.fromEntries(
    Object.entries(schema.properties).map(([name, field]) => [name, isFields(field) ? fieldOf(field) : field]),
  );
  const required = Array.isArray(schema.required) ? { required: schema.required } : {};
  return FormSchema.safeParse({ type: 'object', properties, ...required }).data;
}

const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  string: ['enum', 'minLength', 'maxLength', 'default'],
  number: ['minimum', 'maximum', 'default'],
  integer: ['minimum', 'maximum', 'default'],
  boolean: ['default'],
};

/** A field without the keywords that a form does not have. Lists of choices become `enum`. */
function fieldOf(field: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { type } = field;
  const known = (KEYWORDS[String(type)] ?? []).flatMap((name) => (name in field ? [[name, field[name]] as const] : []));
  const titles = ['title', 'description'].flatMap((name) => {
    const label = bounded(field[name], LABEL_LENGTH);
    return label === undefined ? [] : [[name, label] as const];
  });
  const options = Array.isArray(field.oneOf) ? field.oneOf.map((one) => (isFields(one) ? one.const : undefined)) : [];
  return { type, ...(options.length > 0 ? { enum: options } : {}), ...Object.fromEntries([...known, ...titles]) };
}

function bounded(text: unknown, length: number): string | undefined {
  return typeof text === 'string' && text.trim() !== '' ? text.slice(0, length).toWellFormed() : undefined;
}
