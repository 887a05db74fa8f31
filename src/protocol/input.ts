import { z } from 'zod';

const label = z.string().min(1).max(200);
/** A list without repetitions, which JSON Schema forbids in `enum` and `required`. Other parties send them. */
export const distinct = (list: z.ZodArray<z.ZodString>) => list.overwrite((values) => [...new Set(values)]);
const FormField = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('string'),
    title: label.optional(),
    description: label.optional(),
    enum: distinct(z.array(label).min(1).max(100)).optional(),
    minLength: z.int().min(0).optional(),
    maxLength: z.int().min(0).optional(),
    default: z.string().optional(),
  }),
  z.strictObject({
    type: z.enum(['number', 'integer']),
    title: label.optional(),
    description: label.optional(),
    minimum: z.number().optional(),
    maximum: z.number().optional(),
    default: z.number().optional(),
  }),
  z.strictObject({
    type: z.literal('boolean'),
    title: label.optional(),
    description: label.optional(),
    default: z.boolean().optional(),
  }),
]);

/** Form of an input request: a flat object, like the form elicitation of MCP. It has no pattern that could be slow. */
export const FormSchema = z.strictObject({
  type: z.literal('object'),
  properties: z.record(z.string().min(1).max(64), FormField).refine((fields) => Object.keys(fields).length <= 50, {
    error: 'must have at most 50 properties',
  }),
  required: distinct(z.array(z.string()).max(50)).optional(),
});
export type FormSchema = z.infer<typeof FormSchema>;

/** What a run asks its user. `tool_call_id` names the call that needs the answer. */
export type InputRequest = (
  | { readonly kind: 'approval'; readonly message: string }
  | { readonly kind: 'choice'; readonly message: string; readonly choices: readonly string[] }
  | { readonly kind: 'form'; readonly message: string; readonly schema: FormSchema }
  /** A call of a tool that the front end of the user executes. */
  | { readonly kind: 'tool'; readonly message: string }
) & {
  readonly tool_name?: string;
  readonly tool_call_id?: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
};

/** An input request as its user sees it. */
export type OpenInputRequest = InputRequest & { readonly input_id: string; readonly expires_at: string };

/** `accept` with the content of a choice, a form or a tool; `decline` for a refusal, `cancel` for no decision. */
export const InputAnswer = z.object({
  action: z.enum(['accept', 'decline', 'cancel']),
  content: z.record(z.string().max(64), z.unknown()).optional(),
});
export type InputAnswer = z.infer<typeof InputAnswer>;

/** What the agent receives. `expired`: there was no answer in time. */
export type InputOutcome = InputAnswer | { readonly action: 'expired'; readonly content?: undefined };

/** The id of the input request of a call. */
export function inputIdOf(callId: string): string {
  return `input_${callId.slice('call_'.length)}`;
}

/** The run behind the id of a call or of an input request of a call; undefined for other ids. */
export function runIdOfCall(id: string): string | undefined {
  const [, number] = /^(?:call|input)_([\w-]{20})_/.exec(id) ?? [];
  return number === undefined ? undefined : `run_${number}`;
}
