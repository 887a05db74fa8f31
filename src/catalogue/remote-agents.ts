import { z } from 'zod';

/** Limit of `timeout_seconds`: one day. */
const LONGEST_SECONDS = 86_400;
const seconds = (fallback: number) => z.number().min(0.1).max(LONGEST_SECONDS).default(fallback);
const count = (fallback: number, max: number) => z.number().int().min(1).max(max).default(fallback);
/** Values of headers. A secret is a reference to an environment variable, `${NAME}`. */
const Headers = z.record(z.string().regex(/^[A-Za-z0-9_-]{1,64}$/), z.string().max(1_000)).default({});
const Fields = z.record(z.string().max(64), z.unknown()).default({});

/** System instructions of an agent; default: the description. */
export const Instructions = z.string().min(1).max(8_000).optional();
/** Name of a model. */
export const Model = z.string().min(1).max(200).optional();
/** Milliseconds from acceptance to the last event of a run; default: `RUN_TIMEOUT_SECONDS`. */
export const TimeoutSeconds = z.number().int().min(1).max(LONGEST_SECONDS).optional();

/** Settings of every agent that another server runs, beside those of all agents; docs/agents.md describes each. */
const REMOTE = {
  url: z.string().min(1).max(2_000),
  instructions: Instructions,
  headers: Headers,
  /** Whether a worker that takes a run over may send the task again, if the server cannot continue it. */
  repeatable: z.boolean().default(false),
  /** Price units of one turn, in addition to those of the reported tokens. */
  units: z.number().int().min(0).default(0),
  /** Until the headers of a response. */
  response_seconds: seconds(30),
  /** Longest time without any bytes within a response. */
  idle_seconds: seconds(60),
  /** One line, or one event of an event stream, in KiB. */
  event_kib: count(256, 4_096),
  /** All bytes that the server sends in a run, in KiB. */
  total_kib: count(4_096, 65_536),
  /** Events that the server sends in a run. */
  events: count(50_000, 1_000_000),
  /** Characters of the answer. */
  text_characters: count(262_144, 1_000_000),
  /** Concurrent requests to the server, per worker. */
  concurrency: count(50, 1_000),
  /** Earlier messages of the thread that are sent, whole messages, the latest. */
  history_messages: z.number().int().min(0).max(200).default(20),
  history_bytes: z
    .number()
    .int()
    .min(0)
    .max(2 ** 20)
    .default(16_384),
  /** Address at which the agent reaches the gateway's `/mcp`; default: `PUBLIC_URL` with that path. */
  mcp_url: z.string().min(1).max(2_000).optional(),
};

/** Rows of agents.json for agents that another server runs, by `kind`. */
export const REMOTE_KINDS = {
  http: {
    ...REMOTE,
    kind: z.literal('http'),
    /** Reference to the variable with the secret that signs requests. */
    secret: z.string().max(1_000),
  },
  agui: {
    ...REMOTE,
    kind: z.literal('agui'),
    forwarded_props: Fields,
    state: z.unknown().default({}),
    context: z
      .array(z.strictObject({ description: z.string(), value: z.string() }))
      .max(64)
      .default([]),
    /** Requests per run: one, and one more after each answer with calls of Tollgate's tools. */
    rounds: count(8, 64),
  },
  responses: {
    ...REMOTE,
    kind: z.literal('responses'),
    /** Name of the model or agent at the server; default: the name of the agent. */
    model: Model,
    /** Whether the server stores responses and continues them after a lost connection. */
    background: z.boolean().default(true),
    extra_body: Fields,
  },
  a2a: {
    ...REMOTE,
    kind: z.literal('a2a'),
    /** Path of the agent card; it is read from the origin of `url`. Without a card, requests go to `url`. */
    card: z.string().startsWith('/').max(500).default('/.well-known/agent-card.json'),
    metadata: Fields,
  },
} as const;

type Row<Shape extends z.ZodRawShape> = Readonly<z.infer<z.ZodObject<Shape>>>;
export type HttpSettings = Row<typeof REMOTE_KINDS.http>;
export type AguiSettings = Row<typeof REMOTE_KINDS.agui>;
export type ResponsesSettings = Row<typeof REMOTE_KINDS.responses>;
export type A2aSettings = Row<typeof REMOTE_KINDS.a2a>;
export type RemoteSettings = HttpSettings | AguiSettings | ResponsesSettings | A2aSettings;
export type RemoteKind = keyof typeof REMOTE_KINDS;
