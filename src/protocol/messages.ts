import { z } from 'zod';
import type { Identity } from './identity.ts';
import { InputAnswer } from './input.ts';

const text = (max: number) => z.string().min(1).max(max).refine(isWellFormed, 'must not contain a lone surrogate');
/**
 * Rejects lone surrogates, which a JSON escape can produce (RFC 8259 section 8.2). All of them become the same
 * character in UTF-8, so different names would collide, and Redis and many clients reject JSON that contains them.
 */
function isWellFormed(value: string): boolean {
  return value.isWellFormed();
}
/** Text typed by a person. A program may have cut it within a character, so lone surrogates are replaced. */
const words = (max: number) =>
  z
    .string()
    .min(1)
    .max(max)
    .overwrite((value) => value.toWellFormed());
const requestId = text(128).optional();
/** RFC 6749 appendix A.17, with the length of an access token. */
export const RefreshToken = z.string().regex(/^[\x20-\x7e]{1,8192}$/, 'must have 1 to 8192 printable ASCII characters');

/**
 * Messages that a client may send. Validators, aliases, the Socket.IO event list and `GET /ws/config` are derived from
 * this table. Messages with `access: 'anyone'` are accepted before authentication.
 */
export const CLIENT_MESSAGES = {
  ping: {
    aliases: [],
    access: 'anyone',
    fields: z.object({ timestamp: z.union([z.string().max(64), z.number()]).optional() }),
  },
  heartbeat: { aliases: [], access: 'anyone', fields: z.object({}) },
  auth: {
    aliases: ['authenticate'],
    access: 'anyone',
    fields: z.object({ token: z.string().max(16_384).optional(), refresh_token: RefreshToken.optional() }),
  },
  service_auth: {
    aliases: [],
    access: 'anyone',
    // All fields are optional here: a missing one is a failed authentication and closes the connection like any other.
    fields: z.object({
      service_id: z.string().max(128).optional(),
      context: z.string().max(256).optional(),
      token: z.string().max(16_384).optional(),
    }),
  },
  token_refresh: {
    aliases: [],
    access: 'user',
    fields: z
      .object({ token: text(16_384).optional(), refresh_token: RefreshToken.optional() })
      .refine(({ token, refresh_token }) => token !== undefined || refresh_token === undefined, {
        path: ['refresh_token'],
        error: 'needs the access token beside it',
      }),
  },
  agent_request: {
    aliases: ['start_agent', 'user_message', 'chat_message', 'chat'],
    access: 'user',
    fields: z.object({
      message: words(65_536),
      agent: text(64).optional(),
      thread_id: z
        .string()
        .regex(/^[\w-]{1,64}$/, 'must have 1 to 64 letters, digits, _ or -')
        .optional(),
      request_id: requestId,
    }),
  },
  agent_cancel: {
    aliases: ['stop_agent'],
    access: 'user',
    fields: z.object({ run_id: text(64), request_id: requestId }),
  },
  run_status: {
    aliases: [],
    access: 'user',
    // With a run id, the request id only identifies this request; alone, it is that of the request that started the
    // run.
    fields: z
      .object({ run_id: text(64).optional(), request_id: requestId })
      .refine(({ run_id, request_id }) => run_id !== undefined || request_id !== undefined, {
        path: ['run_id'],
        error: 'run_id or request_id is required',
      }),
  },
  input_response: {
    aliases: [],
    access: 'user',
    fields: InputAnswer.extend({ run_id: text(64), input_id: text(128), request_id: requestId }),
  },
  tool_call: {
    aliases: [],
    access: 'user',
    fields: z.object({
      tool: text(64),
      arguments: z.record(z.string(), z.unknown()).default({}),
      idempotency_key: text(128).optional(),
      request_id: requestId,
    }),
  },
  usage_summary: { aliases: [], access: 'user', fields: z.object({ request_id: requestId }) },
  tools_list: { aliases: [], access: 'user', fields: z.object({ request_id: requestId }) },
  threads_list: { aliases: [], access: 'user', fields: z.object({ request_id: requestId }) },
  thread_history: {
    aliases: [],
    access: 'user',
    fields: z.object({
      thread_id: text(64),
      before: text(64).optional(),
      limit: z.number().int().min(1).max(100).default(50),
      request_id: requestId,
    }),
  },
  resume: {
    aliases: [],
    access: 'user',
    fields: z.object({ after: z.number().int().min(0), epoch: text(64), request_id: requestId }),
  },
  typing: {
    aliases: [],
    access: 'user',
    fields: z.object({ thread_id: text(64).optional(), request_id: requestId }),
  },
} as const satisfies Record<string, { aliases: readonly string[]; access: 'anyone' | 'user'; fields: z.ZodType }>;

export type ClientMessageType = keyof typeof CLIENT_MESSAGES;
export type ClientFields<T extends ClientMessageType> = z.infer<(typeof CLIENT_MESSAGES)[T]['fields']>;

/** Sender of a message type: messages with `access: 'anyone'` may come from a client without an identity. */
export type UserOf<T extends ClientMessageType> = {
  readonly anyone: Identity | undefined;
  readonly user: Identity;
}[(typeof CLIENT_MESSAGES)[T]['access']];

type OpenMessageType = {
  [T in ClientMessageType]: (typeof CLIENT_MESSAGES)[T]['access'] extends 'anyone' ? T : never;
}[ClientMessageType];

/** Whether a message is accepted before authentication. */
export function isOpenMessage(type: ClientMessageType | undefined): type is OpenMessageType {
  return type !== undefined && CLIENT_MESSAGES[type].access === 'anyone';
}

/** The same table, in a form in which each type stays paired with its own fields. */
const SCHEMAS: { readonly [T in ClientMessageType]: { readonly fields: z.ZodType<ClientFields<T>> } } = CLIENT_MESSAGES;

/** Schema of the fields of a message. */
export function fieldsSchema<T extends ClientMessageType>(type: T): z.ZodType<ClientFields<T>> {
  return SCHEMAS[type].fields;
}

const TYPE_BY_NAME = new Map<string, ClientMessageType>(
  (Object.keys(CLIENT_MESSAGES) as ClientMessageType[]).flatMap((type) =>
    [type, ...CLIENT_MESSAGES[type].aliases].map((name) => [name, type] as const),
  ),
);

/** Resolves a message name or alias. */
export function clientMessageType(name: string): ClientMessageType | undefined {
  return TYPE_BY_NAME.get(name);
}

/** All message names including aliases. */
export const CLIENT_MESSAGE_NAMES: readonly string[] = [...TYPE_BY_NAME.keys()];

/** Events in the user's event log. They have a `seq` and can be resumed. */
export const DURABLE_EVENTS = [
  'agent_started',
  'agent_thinking',
  'agent_reasoning',
  'agent_state',
  'agent_activity',
  'tool_executing',
  'tool_completed',
  'input_requested',
  'input_received',
  'input_expired',
  'agent_completed',
  'agent_failed',
  'agent_cancelled',
  'thread_updated',
] as const;
export type DurableEventType = (typeof DURABLE_EVENTS)[number];

/** Terminal events; every run ends with exactly one. */
export const TERMINAL_EVENTS = ['agent_completed', 'agent_failed', 'agent_cancelled'] as const;
export type TerminalEventType = (typeof TERMINAL_EVENTS)[number];

export function isTerminalEvent(type: string): type is TerminalEventType {
  return (TERMINAL_EVENTS as readonly string[]).includes(type);
}

/** Events and replies that are not in the event log and are not sent again after a lost connection. */
export const TRANSIENT_EVENTS = [
  'connection_established',
  'auth_success',
  'pong',
  'heartbeat',
  'heartbeat_ack',
  'agent_accepted',
  'cancel_accepted',
  'input_accepted',
  'run_status',
  'tool_result',
  'usage_summary',
  'tools_list',
  'threads_list',
  'thread_history',
  'resumed',
  'resume_failed',
  'typing_ack',
  'token_refreshed',
  'token_refresh_scheduled',
  'token_refresh_failed',
  'token_degraded',
  'plan_changed',
  'session_terminated',
  'server_draining',
  'info',
  'error',
] as const;
export type TransientEventType = (typeof TRANSIENT_EVENTS)[number];

/**
 * Names with a meaning for Socket.IO or `EventEmitter`: `emit` throws for some, internal listeners handle the others.
 */
const RESERVED_BY_SOCKET_IO = [
  'connect',
  'connect_error',
  'connection',
  'disconnect',
  'disconnecting',
  'newListener',
  'removeListener',
];
const OURS = new Set<string>([
  ...DURABLE_EVENTS,
  ...TRANSIENT_EVENTS,
  ...CLIENT_MESSAGE_NAMES,
  ...RESERVED_BY_SOCKET_IO,
]);
/** Field names that the dialects or the event log add to an event. */
const RESERVED_FIELDS = ['type', 'payload', 'timestamp', 'jsonrpc', 'seq', 'epoch'];

/**
 * Transient event that a service publishes to a user (`POST /v1/users/{id}/events`). The gateway's own types are
 * rejected, so that a service cannot forge gateway events.
 */
export const PublishedEventFields = z.strictObject({
  type: z
    .string()
    .regex(/^[A-Za-z][\w.:-]{0,63}$/, 'must have 1 to 64 letters, digits, _ . : or -, and begin with a letter')
    .refine((type) => !OURS.has(type), 'is reserved for the gateway')
    .brand<'PublishedEvent'>(),
  fields: z
    .record(z.string().max(128), z.unknown())
    .refine(
      (fields) => !RESERVED_FIELDS.some((name) => name in fields),
      `must not contain ${RESERVED_FIELDS.join(', ')}`,
    )
    .default({}),
});
export type PublishedEvent = z.infer<typeof PublishedEventFields>['type'];

/** Validates an event on the user channel; returns undefined if only an older version of this check accepts it. */
export function publishedEvent(parsed: unknown): z.infer<typeof PublishedEventFields> | undefined {
  return PublishedEventFields.safeParse(parsed).data;
}

export type ServerEventType = DurableEventType | TransientEventType | PublishedEvent;

/** The fields of a message or event, apart from its type. */
export type Fields = Readonly<Record<string, unknown>>;

/** Returns whether a parsed JSON value is an object, not an array or null. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * A durable event for delivery to clients. The fields are rendered once, because all connections receive the same
 * bytes.
 */
export interface LogEntry {
  /** A `DurableEventType`, or a type that only a newer version of Tollgate appends. */
  readonly type: string;
  readonly seq: number;
  /** Log epoch. It changes when the log is lost; `seq` values of different epochs are unrelated. */
  readonly epoch: string;
  /** ISO 8601, UTC; the same as in the fields. */
  readonly timestamp: string;
  /** The fields as a JSON object, `seq` and `timestamp` included. */
  readonly json: string;
}
