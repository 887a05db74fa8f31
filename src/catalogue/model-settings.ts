import { z } from 'zod';

const seconds = (max: number) => z.number().min(0.1).max(max);
const count = (max: number) => z.number().int().min(1).max(max);
/** Values of headers and query parameters. A secret is a reference to an environment variable, `${NAME}`. */
const Values = z.record(z.string().regex(/^[A-Za-z0-9_-]{1,64}$/), z.string().max(1_000));
const ReservedBody = ['model', 'messages', 'stream', 'tools'];

/** Settings of a model or of one of its endpoints; docs/models.md describes each. */
const SETTINGS = {
  /** Sampling; left out of the request when unset. */
  temperature: z.number().min(0).max(5),
  top_p: z.number().min(0).max(1),
  reasoning_effort: z.string().regex(/^[a-z]{1,16}$/),
  response_format: z.record(z.string(), z.unknown()),
  parallel_tool_calls: z.boolean(),
  max_output_tokens: count(1_000_000),
  output_parameter: z.enum(['max_tokens', 'max_completion_tokens', 'none']),
  /** Whether to request token counts with `stream_options`. */
  stream_options: z.boolean(),
  extra_body: z
    .record(z.string().max(64), z.unknown())
    .refine((body) => !ReservedBody.some((name) => name in body), `must not contain ${ReservedBody.join(', ')}`),
  headers: Values,
  query: Values,
  key_header: z.enum(['authorization', 'api-key', 'x-api-key']),
  /** Role of the instructions; `user` puts them before the first message of the user. */
  instructions_role: z.enum(['system', 'developer', 'user']),
  /** Whether reasoning and signatures go back to the model. */
  send_reasoning: z.boolean(),
  /** Whether reasoning is delivered to clients. */
  show_reasoning: z.boolean(),
  /** Whether the model reads images of tool results. */
  images: z.boolean(),
  first_chunk_seconds: seconds(280),
  silence_seconds: seconds(280),
  /** After `finish_reason`, for token counts and late text. */
  end_seconds: seconds(60),
  /** Total wait for an endpoint that answers 503. */
  loading_seconds: seconds(280).or(z.literal(0)),
  longest_retry_seconds: seconds(280),
  /** Requests per step. */
  attempts: count(10),
  steps: count(32),
  calls_per_step: count(64),
  argument_characters: count(262_144),
  text_characters: count(1_000_000),
  reasoning_characters: count(1_000_000),
  response_bytes: count(64 * 2 ** 20),
  tool_result_characters: count(1_000_000),
  history_messages: z.number().int().min(0).max(200),
  history_bytes: z
    .number()
    .int()
    .min(0)
    .max(2 ** 20),
  tool_description_characters: count(16_384),
  /** Keywords to leave out of the schemas of tools. */
  dropped_schema_keywords: z.array(z.string().min(1).max(64)).max(64),
};

const Settings = z.object(SETTINGS);
type AllSettings = z.infer<typeof Settings>;
/** Settings that the request leaves out when they are unset. */
type Optional = 'temperature' | 'top_p' | 'reasoning_effort' | 'response_format' | 'parallel_tool_calls';
export type ModelSettings = Readonly<Omit<AllSettings, Optional> & Partial<Pick<AllSettings, Optional>>>;

export const DEFAULT_SETTINGS: ModelSettings = {
  max_output_tokens: 2_048,
  output_parameter: 'max_tokens',
  stream_options: true,
  extra_body: {},
  headers: {},
  query: {},
  key_header: 'authorization',
  instructions_role: 'system',
  send_reasoning: true,
  show_reasoning: true,
  images: false,
  first_chunk_seconds: 20,
  silence_seconds: 10,
  end_seconds: 3,
  loading_seconds: 20,
  longest_retry_seconds: 10,
  attempts: 4,
  steps: 8,
  calls_per_step: 8,
  argument_characters: 8_192,
  text_characters: 32_768,
  reasoning_characters: 32_768,
  // A chunk has about 300 bytes per token, so this is several times the size that the output bound needs.
  response_bytes: 4 * 2 ** 20,
  tool_result_characters: 16_384,
  history_messages: 20,
  history_bytes: 16_384,
  // The limit of OpenAI, which other hosted endpoints copy.
  tool_description_characters: 1_024,
  dropped_schema_keywords: [],
};

/** A local server loads the model, or processes a long prompt, before its first byte. */
const LOCAL = { first_chunk_seconds: 40, silence_seconds: 20, tool_description_characters: 16_384 } as const;
/** Grammars of llama.cpp refuse most regular expressions. */
const LLAMA_CPP = { ...LOCAL, dropped_schema_keywords: ['pattern'] };

export const PRESETS = {
  openai: { output_parameter: 'max_completion_tokens' },
  'azure-openai': { output_parameter: 'max_completion_tokens', key_header: 'api-key' },
  anthropic: { send_reasoning: false },
  gemini: {
    dropped_schema_keywords: [
      'additionalProperties',
      'const',
      'default',
      'examples',
      'exclusiveMaximum',
      'exclusiveMinimum',
      'multipleOf',
      'not',
      'patternProperties',
      'propertyNames',
      'uniqueItems',
    ],
  },
  mistral: { stream_options: false, send_reasoning: false },
  deepseek: {},
  groq: { output_parameter: 'max_completion_tokens', send_reasoning: false },
  openrouter: {},
  vllm: LOCAL,
  'llama.cpp': LLAMA_CPP,
  ollama: LOCAL,
  'lm-studio': LLAMA_CPP,
  litellm: {},
} as const satisfies Readonly<Record<string, Partial<ModelSettings>>>;
export type PresetName = keyof typeof PRESETS;

const Preset = z.enum(Object.keys(PRESETS) as [PresetName, ...PresetName[]]);
const Row = { ...Settings.partial().shape, preset: Preset.optional() };

const EndpointRow = z.strictObject({
  ...Row,
  /** The address to which `/chat/completions` is added. */
  url: z.string().min(1).max(2_000),
  /** Reference to the environment variable with the key. */
  key: z.string().max(1_000).optional(),
  /** Name of the model at this endpoint; default: that of the row. */
  model: z.string().min(1).max(200).optional(),
  /** Share of the requests, relative to the other endpoints. */
  weight: z.number().min(0).max(1_000).default(1),
});

/** A row of `models` in agents.json. */
export const ModelRow = z.strictObject({
  ...Row,
  /** Default: the endpoint of the deployment, `AGENT_MODEL_URL`. */
  endpoints: z.array(EndpointRow).min(1).max(16).optional(),
});
export type ModelRow = Readonly<z.infer<typeof ModelRow>>;
export type EndpointRow = Readonly<z.infer<typeof EndpointRow>>;

/** Returns the settings of an endpoint: its own, else those of the model, else those of the presets. */
export function settingsOf(model: ModelRow, endpoint: Partial<EndpointRow> = {}): ModelSettings {
  const { preset, endpoints: _endpoints, ...own } = model;
  const { preset: endpointPreset, url: _url, key: _key, model: _model, weight: _weight, ...nearest } = endpoint;
  const presets = [preset, endpointPreset].map((name) => (name ? PRESETS[name] : {}));
  return Object.assign({}, DEFAULT_SETTINGS, ...presets, defined(own), defined(nearest)) as ModelSettings;
}

function defined(values: object): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}
