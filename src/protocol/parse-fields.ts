import { z } from 'zod';
import { formatError } from './format-error.ts';

/**
 * Validates the fields of a message or of an HTTP body. A null for a field that does not accept null counts as missing,
 * because the serializers of many languages write null for every unset field: a required field is still required.
 * @throws TollgateError FORMAT_ERROR that names the first invalid field
 */
export function parseFields<Schema extends z.ZodType>(schema: Schema, input: unknown): z.output<Schema> {
  const parsed = schema.safeParse(withoutUnsetFields(schema, input));
  if (!parsed.success) throw formatError(parsed.error);
  return parsed.data;
}

/**
 * Removes the nulls of unset fields. Only fields that the schema declares are considered, so nulls within tool
 * arguments and other free JSON are kept, and so is a null that the schema accepts.
 */
export function withoutUnsetFields(schema: z.ZodType, input: unknown): unknown {
  const shape = shapeOf(schema);
  if (!shape || typeof input !== 'object' || input === null || Array.isArray(input)) return input;
  // Most messages are flat and have no null.
  if (Object.values(input).every((value) => typeof value !== 'object')) return input;
  return Object.fromEntries(
    Object.entries(input).flatMap(([name, value]) => {
      const field = Object.hasOwn(shape, name) ? shape[name] : undefined;
      if (!field) return [[name, value]];
      if (value === null && !field.safeParse(null).success) return [];
      return [[name, withoutUnsetFields(field, value)]];
    }),
  );
}

/** The declared fields of an object schema. Those of a union are the fields of all its options. */
function shapeOf(schema: unknown): Readonly<Record<string, z.ZodType>> | undefined {
  if (schema instanceof z.ZodObject) return schema.shape as Record<string, z.ZodType>;
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodDefault) {
    return shapeOf(schema.unwrap());
  }
  if (!(schema instanceof z.ZodUnion)) return undefined;
  return Object.assign({}, ...schema.options.map((option) => shapeOf(option) ?? {}));
}
