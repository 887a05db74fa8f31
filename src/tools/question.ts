import { z } from 'zod';
import { FREE_TEXT } from '../protocol/forms.ts';
import { distinct, FormSchema, type InputRequest } from '../protocol/input.ts';

/** Arguments of a tool that the user answers: a question, and optionally how to answer it. */
const Question = z.strictObject({
  message: z.string().min(1).max(2_000),
  choices: distinct(z.array(z.string().min(1).max(200)).min(1).max(100)).optional(),
  form: FormSchema.optional(),
});

/** Returns the input request for a call of such a tool, or what is wrong with its arguments, as one sentence. */
export function questionOfArguments(args: Readonly<Record<string, unknown>>): InputRequest | string {
  const { data, error } = Question.safeParse(args);
  if (!data) {
    const [issue] = error.issues;
    return `arguments${issue?.path.length ? `.${issue.path.join('.')}` : ''}: ${issue?.message ?? 'invalid'}`;
  }
  const { message, choices, form } = data;
  if (choices && form) return 'arguments: choices and form exclude each other';
  return choices ? { kind: 'choice', message, choices } : { kind: 'form', message, schema: form ?? FREE_TEXT };
}
