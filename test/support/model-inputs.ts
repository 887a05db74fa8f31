import type { ModelRow } from '../../src/catalogue/model-settings.ts';
import type { ScriptedReply } from './model-server.ts';

/** What a run does with an input of a model. Fields that are left out are not compared. */
export interface Expected {
  readonly end: 'completed' | 'failed';
  /** Requests to the endpoint, repetitions included. */
  readonly requests: number;
  readonly answer?: string;
  /** Text of the `agent_reasoning` events. */
  readonly reasoning?: string;
  /** Tools that ran, with their arguments. */
  readonly ran?: readonly (readonly [string, object])[];
  /** Parts of the results that the model received for its calls, in their order. */
  readonly results?: readonly string[];
  /** Fields of the error of `agent_failed`, or of `agent_completed`. */
  readonly error?: object;
  readonly completed?: object;
  /** Fields of the usage records, oldest first. */
  readonly records?: readonly object[];
  /** Fields of the messages that the second request adds, in their order. */
  readonly sent?: readonly object[];
}

export interface ModelInput {
  /** Row of the list of reported inputs, or a name of our own. */
  readonly id: string;
  readonly situation: string;
  /** Replies to the requests in turn; later requests get `ANSWER`. */
  readonly replies: readonly ScriptedReply[];
  /** Settings of the model in agents.json. */
  readonly settings?: ModelRow;
  readonly expected: Expected;
}

type Piece = object | string | number;

const chunk = (delta: object | null, finish_reason: string | null = null) => ({
  choices: [{ index: 0, delta, finish_reason }],
});
const text = (content: unknown) => chunk({ content });
const call = (...tool_calls: readonly unknown[]) => chunk({ tool_calls });
const args = (index: number, json: unknown) => call({ index, function: { arguments: json } });
const STOP = chunk({}, 'stop');
const CALLS = chunk({}, 'tool_calls');
const DONE = 'data: [DONE]\n\n';
const stream = (...pieces: readonly Piece[]): ScriptedReply => ({ stream: pieces });
const replied = (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): ScriptedReply => ({
  status,
  body,
  headers,
});
const json = (body: unknown): ScriptedReply => replied(200, body);
/** The reply that ends a run. */
export const ANSWER = stream(text('Done.'), STOP, DONE);

const LIMIT = ['count', { limit: 5 }] as const;
const ranOnce = { end: 'completed', requests: 2, ran: [LIMIT], answer: 'Done.' } as const;
const answered = (answer: string) => ({ end: 'completed', requests: 1, answer }) as const;
const refusedToModel = { end: 'completed', requests: 2, ran: [], results: ['FORMAT_ERROR'], answer: 'Done.' } as const;
const whole = (fields: object = {}) =>
  call({ index: 0, id: 'call_1', type: 'function', function: { name: 'count', arguments: '{"limit":5}' }, ...fields });

const LONG_ID = `call_${'S'.repeat(945)}`;
const unsupported = (param: string, message = `Unsupported parameter: '${param}' is not supported.`) => ({
  error: { message, type: 'invalid_request_error', param, code: 'unsupported_parameter' },
});

/** Inputs of section A of the list of reported inputs; the situation names where each was reported. */
const REPORTED: readonly ModelInput[] = [
  {
    id: 'A1',
    situation: 'argument pieces under a rising index, without id and name (dirac#215)',
    replies: [
      stream(
        call({ index: 0, id: 'call_1', function: { name: 'count', arguments: '' } }),
        args(1, '{"limit"'),
        args(2, ':5}'),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'A2',
    situation: 'argument pieces without index, id and name (AstrBot#6692)',
    replies: [
      stream(
        call({ id: 'call_1', function: { name: 'count', arguments: '' } }),
        call({ function: { arguments: '{"limit"' } }),
        call({ function: { arguments: ':5}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'A2b',
    situation: 'argument pieces without index, each with the id of the call (AstrBot#6692)',
    replies: [
      stream(
        call({ id: 'call_1', function: { name: 'count', arguments: '' } }),
        call({ id: 'call_1', function: { arguments: '{"limit"' } }),
        call({ id: 'call_1', function: { arguments: ':5}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'A3',
    situation: 'id and name repeated with every piece (hermes-agent#8259)',
    replies: [
      stream(
        call({ index: 0, id: 'call_1', function: { name: 'count', arguments: '' } }),
        call({ index: 0, id: 'call_1', function: { name: 'count', arguments: '{"limit"' } }),
        call({ index: 0, id: 'call_1', function: { name: 'count', arguments: ':5}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'A3b',
    situation: 'a name in pieces (continue#5849)',
    replies: [
      stream(
        call({ index: 0, id: 'call_1', function: { name: 'co' } }),
        call({ index: 0, function: { name: 'unt' } }),
        args(0, '{"limit":5}'),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'A8',
    situation: 'arguments as an object (llama.cpp#20198)',
    replies: [stream(call({ index: 0, id: 'c', function: { name: 'count', arguments: { limit: 5 } } }), CALLS, DONE)],
    expected: ranOnce,
  },
  {
    id: 'A9',
    situation: 'usage in every chunk: null, {}, without completion_tokens, fractions, other names (vercel/ai#2763)',
    replies: [
      stream(
        { ...text('One '), usage: null },
        { ...text('two '), usage: {} },
        { ...text('three '), usage: { prompt_tokens: 7 } },
        { ...text('four.'), usage: { prompt_tokens: 7.5, completion_tokens: 'many' } },
        STOP,
        { choices: [], usage: { input_tokens: 7, output_tokens: 4 } },
        DONE,
      ),
    ],
    expected: {
      ...answered('One two three four.'),
      records: [{ status: 'success', units_by_kind: { input_tokens: 7, output_tokens: 4 } }],
    },
  },
  {
    id: 'A10',
    situation: 'content as a list with thinking parts, later as a string (litellm#16272)',
    replies: [
      stream(
        text([{ type: 'thinking', thinking: [{ type: 'text', text: 'Hmm, ' }] }]),
        text([{ type: 'thinking', thinking: [{ type: 'text', text: 'well.' }] }]),
        text([{ type: 'text', text: 'Hello' }]),
        text(' there.'),
        STOP,
        DONE,
      ),
    ],
    expected: { ...answered('Hello there.'), reasoning: 'Hmm, well.' },
  },
  {
    id: 'A11',
    situation: 'SSE blocks without data as keep-alive (cadis#362)',
    replies: [stream('data:\n\n', text('Hello'), 'event: ping\n\n', 'data: \n\n', text('.'), ': hi\n\n', STOP, DONE)],
    expected: answered('Hello.'),
  },
  {
    id: 'A12',
    situation: 'no finish_reason, then [DONE] (sglang#3912)',
    replies: [stream(text('Hello.'), DONE)],
    expected: answered('Hello.'),
  },
  {
    id: 'A13',
    situation: 'finish_reason early, content goes on after 1.5 s (open-webui#16377)',
    replies: [stream(text('One'), STOP, 1_500, text(' two'), 100, text(' three.'), STOP, DONE)],
    expected: answered('One two three.'),
  },
  {
    id: 'A14',
    situation: 'a signature beside a call must come back (Gemini, dify-official-plugins#2088)',
    replies: [stream(whole({ extra_content: { google: { thought_signature: 'sig==' } } }), CALLS, DONE)],
    expected: {
      ...ranOnce,
      sent: [{ tool_calls: [{ id: 'call_1', extra_content: { google: { thought_signature: 'sig==' } } }] }, {}],
    },
  },
  {
    id: 'A15',
    situation: 'reasoning_content of a step with tools must come back (DeepSeek, continue#10193)',
    replies: [stream(chunk({ reasoning_content: 'I ' }), chunk({ reasoning_content: 'count.' }), whole(), CALLS, DONE)],
    expected: { ...ranOnce, reasoning: 'I count.', sent: [{ reasoning_content: 'I count.' }, {}] },
  },
  {
    id: 'A16',
    situation: 'a signature in an id of 950 characters (litellm#16895)',
    replies: [stream(whole({ id: LONG_ID }), CALLS, DONE)],
    expected: { ...ranOnce, sent: [{ tool_calls: [{ id: LONG_ID }] }, { tool_call_id: LONG_ID }] },
  },
  {
    id: 'A19',
    situation: 'max_tokens is refused (Azure, opencode#37964)',
    replies: [replied(400, unsupported('max_tokens', "Use 'max_completion_tokens' instead of 'max_tokens'."))],
    expected: { end: 'completed', requests: 2, answer: 'Done.' },
  },
  {
    id: 'A20',
    situation: 'stream_options is refused (Mistral, openai-agents-python#442)',
    replies: [
      replied(422, { detail: [{ type: 'extra_forbidden', loc: ['body', 'stream_options'], msg: 'Extra inputs' }] }),
    ],
    expected: { end: 'completed', requests: 2, answer: 'Done.' },
  },
  {
    id: 'A25',
    situation: 'thinking fills the output bound (lmstudio-bug-tracker#1602)',
    replies: [
      stream(
        chunk({ reasoning_content: 'I think.' }),
        chunk({}, 'length'),
        { choices: [], usage: { prompt_tokens: 9, completion_tokens: 2_048 } },
        DONE,
      ),
    ],
    expected: {
      end: 'failed',
      requests: 1,
      error: { code: 'INTERNAL_ERROR', retryable: false, reason: 'length' },
      records: [{ status: 'error', units: 0, units_by_kind: { input_tokens: 9, output_tokens: 2_048 } }],
    },
  },
  {
    id: 'A28',
    situation: 'a refusal beside the content (OpenAI)',
    replies: [stream(chunk({ refusal: "I can't " }), chunk({ refusal: 'help.' }), STOP, DONE)],
    expected: { ...answered("I can't help."), completed: { finish_reason: 'refusal' } },
  },
  {
    id: 'A28b',
    situation: 'finish content_filter without text (Azure)',
    replies: [stream(chunk({ role: 'assistant' }), chunk({}, 'content_filter'), DONE)],
    expected: {
      end: 'failed',
      requests: 1,
      error: { code: 'INTERNAL_ERROR', retryable: false, reason: 'content_filter' },
    },
  },
  ...[400, 401, 402, 422].map((status) => ({
    id: `A29-${status}`,
    situation: `HTTP ${status}`,
    replies: [replied(status, { error: { message: 'no', type: 'x', param: 'messages', code: 'bad' } })],
    expected: { end: 'failed', requests: 1, error: { code: 'INTERNAL_ERROR', retryable: false } } as const,
  })),
  {
    id: 'A29',
    situation: 'HTTP 200 with an error object',
    replies: [json({ error: { message: 'no', type: 'invalid_request_error', code: 'model_not_found' } })],
    expected: { end: 'failed', requests: 1, error: { code: 'INTERNAL_ERROR', retryable: false } },
  },
  {
    id: 'A31',
    situation: 'comments until the first chunk, longer than the silence bound (cline#12839)',
    replies: [stream(...Array.from({ length: 6 }, () => [': keep-alive\n\n', 400]).flat(), text('Hello.'), STOP, DONE)],
    expected: answered('Hello.'),
  },
  {
    id: 'A31b',
    situation: '503 while the model is loading, six times (llama.cpp)',
    replies: Array.from({ length: 6 }, () =>
      replied(503, { error: { code: 503, message: 'Loading model', type: 'unavailable_error' } }),
    ),
    expected: { end: 'completed', requests: 7, answer: 'Done.' },
  },
  {
    id: 'A34',
    situation: '<think> inside the content, split across chunks (lmstudio-bug-tracker#649)',
    replies: [stream(text('<th'), text('ink>Hm'), text('m.</thi'), text('nk>\n\nHello!'), STOP, DONE)],
    expected: { ...answered('Hello!'), reasoning: 'Hmm.' },
  },
];

/** Further inputs, found in public issue trackers or derived from the documentation of endpoints. */
const FURTHER: readonly ModelInput[] = [
  {
    id: 'name later',
    situation: 'id and arguments first, the name in a later piece (opencode#24137)',
    replies: [
      stream(
        call({ index: 0, id: 'c', function: { arguments: '{"limit":5}' } }),
        call({ index: 0, function: { name: 'count' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'index of head',
    situation: 'second call: head under index 0, arguments under index 1 (agno#8880)',
    replies: [
      stream(
        whole(),
        call({ index: 0, id: 'call_2', function: { name: 'other', arguments: '' } }),
        args(1, '{"a":1}'),
        CALLS,
        DONE,
      ),
    ],
    expected: { end: 'completed', requests: 2, ran: [LIMIT, ['other', { a: 1 }]] },
  },
  {
    id: 'glued objects',
    situation: 'two argument objects under one call (Gemini, hermes-agent#62940)',
    replies: [
      stream(
        call({ index: 0, id: 'c', function: { name: 'count', arguments: '' } }),
        call({ index: 0, function: { name: '', arguments: '{"a":1}' } }),
        call({ index: 0, function: { name: '', arguments: '{"a":2}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: refusedToModel,
  },
  {
    id: 'same index',
    situation: 'parallel calls that all have index 0, each with an id (gcli2api#406)',
    replies: [
      stream(
        call({ index: 0, id: 'a', function: { name: 'count', arguments: '{"limit":5}' } }),
        call({ index: 0, id: 'b', function: { name: 'count', arguments: '{"limit":6}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: { end: 'completed', requests: 2, ran: [LIMIT, ['count', { limit: 6 }]] },
  },
  {
    id: 'same index, no ids',
    situation: 'parallel calls that all have index 0, without ids',
    replies: [
      stream(
        call({ index: 0, function: { name: 'count', arguments: '{"limit":5}' } }),
        call({ index: 0, function: { name: 'other', arguments: '{"a":1}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: { end: 'completed', requests: 2, ran: [LIMIT, ['other', { a: 1 }]] },
  },
  {
    id: 'new id per piece',
    situation: 'another id with every piece of one call, under one index',
    replies: [
      stream(
        call({ index: 0, id: 'a1', function: { name: 'count', arguments: '' } }),
        call({ index: 0, id: 'a2', function: { arguments: '{"limit"' } }),
        call({ index: 0, id: 'a3', function: { arguments: ':5}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'rising index, repeated name',
    situation: 'pieces under a rising index that repeat the name, without ids',
    replies: [
      stream(
        call({ index: 0, id: 'c', function: { name: 'count', arguments: '' } }),
        call({ index: 1, function: { name: 'count', arguments: '{"limit"' } }),
        call({ index: 2, function: { name: 'count', arguments: ':5}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'rising index, same id',
    situation: 'pieces under a rising index, each with the id of the call',
    replies: [
      stream(
        call({ index: 0, id: 'c', function: { name: 'count', arguments: '' } }),
        call({ index: 1, id: 'c', function: { arguments: '{"limit"' } }),
        call({ index: 2, id: 'c', function: { arguments: ':5}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'index as text',
    situation: 'the index as a string',
    replies: [
      stream(
        call({ index: '0', id: 'c', function: { name: 'count', arguments: '{"limit"' } }),
        call({ index: '0', function: { arguments: ':5}' } }),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'leading {}',
    situation: 'the placeholder {} before the streamed arguments (litellm)',
    replies: [
      stream(
        call({ index: 0, id: 'c', function: { name: 'count', arguments: '{}' } }),
        args(0, '{"limit"'),
        args(0, ':5}'),
        CALLS,
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'twice encoded',
    situation: 'arguments that are a JSON string with JSON in it',
    replies: [stream(call({ index: 0, id: 'c', function: { name: 'count', arguments: '"{\\"limit\\":5}"' } }), CALLS)],
    expected: ranOnce,
  },
  {
    id: 'null arguments',
    situation: 'arguments that are null',
    replies: [stream(call({ index: 0, id: 'c', function: { name: 'count', arguments: null } }), CALLS, DONE)],
    expected: { ...ranOnce, ran: [['count', {}]] },
  },
  {
    id: 'cut arguments',
    situation: 'the output bound ends the reply within the arguments',
    replies: [
      stream(
        call({ index: 0, id: 'c', function: { name: 'count', arguments: '{"limit":' } }),
        chunk({}, 'length'),
        DONE,
      ),
    ],
    expected: refusedToModel,
  },
  {
    id: 'cut before arguments',
    situation: 'the output bound ends the reply before the arguments',
    replies: [
      stream(call({ index: 0, id: 'c', function: { name: 'count', arguments: '' } }), chunk({}, 'length'), DONE),
    ],
    expected: refusedToModel,
  },
  {
    id: 'arguments only',
    situation: 'a call that never gets a name',
    replies: [stream(call({ index: 0, id: 'c', function: { arguments: '{"limit":5}' } }), CALLS, DONE)],
    expected: refusedToModel,
  },
  {
    id: 'end in a call',
    situation: 'the stream ends within the arguments, without finish_reason and [DONE]',
    replies: [stream(call({ index: 0, id: 'c', function: { name: 'count', arguments: '{"lim' } }))],
    expected: { end: 'completed', requests: 2, ran: [], answer: 'Done.' },
  },
  {
    id: 'one call, no list',
    situation: 'tool_calls as an object',
    replies: [
      stream(chunk({ tool_calls: { id: 'c', function: { name: 'count', arguments: '{"limit":5}' } } }), CALLS, DONE),
    ],
    expected: ranOnce,
  },
  {
    id: 'function_call',
    situation: 'the older function_call, in pieces',
    replies: [
      stream(
        chunk({ function_call: { name: 'count', arguments: '' } }),
        chunk({ function_call: { arguments: '{"limit":5}' } }),
        chunk({}, 'function_call'),
        DONE,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'call with finish stop',
    situation: 'a call, and finish_reason stop (ollama, Gemini)',
    replies: [stream(whole(), STOP, DONE)],
    expected: ranOnce,
  },
  {
    id: 'clean end',
    situation: 'text, then the end of the body without finish_reason and [DONE]',
    replies: [stream(text('Hello.'))],
    expected: answered('Hello.'),
  },
  {
    id: 'JSON body',
    situation: 'a JSON body for a streaming request',
    replies: [
      json({
        object: 'chat.completion',
        choices: [{ index: 0, message: { role: 'assistant', content: 'Hello.' }, finish_reason: 'stop' }],
        usage: { prompt_tokens: 5, completion_tokens: 2 },
      }),
    ],
    expected: { ...answered('Hello.'), records: [{ units_by_kind: { input_tokens: 5, output_tokens: 2 } }] },
  },
  {
    id: 'JSON body with a call',
    situation: 'a JSON body with a tool call',
    replies: [
      json({
        choices: [
          {
            message: {
              content: null,
              tool_calls: [{ id: 'c', type: 'function', function: { name: 'count', arguments: '{"limit":5}' } }],
            },
            finish_reason: 'tool_calls',
          },
        ],
      }),
    ],
    expected: ranOnce,
  },
  {
    id: 'JSON lines',
    situation: 'chunks as JSON lines without data:',
    replies: [stream(`${JSON.stringify(text('Hel'))}\n`, `${JSON.stringify(text('lo.'))}\n`, JSON.stringify(STOP))],
    expected: answered('Hello.'),
  },
  {
    id: 'error list',
    situation: 'an error object in a list (Gemini)',
    replies: [replied(400, [{ error: { code: 400, message: 'bad', status: 'INVALID_ARGUMENT' } }])],
    expected: { end: 'failed', requests: 1, error: { retryable: false } },
  },
  {
    id: 'no blank lines',
    situation: 'data lines without blank lines between them',
    replies: [stream(`data: ${JSON.stringify(text('Hel'))}\ndata: ${JSON.stringify(text('lo.'))}\n\n`, STOP, DONE)],
    expected: answered('Hello.'),
  },
  {
    id: 'line ends',
    situation: 'CRLF, a byte order mark, no space after data:, and [DONE] in quotes',
    replies: [
      stream(
        '\uFEFF',
        `data:${JSON.stringify(text('Hel'))}\r\n\r\n`,
        `data:${JSON.stringify(text('lo.'))}\r\n\r\n`,
        'data:"[DONE]"\r\n\r\n',
      ),
    ],
    expected: answered('Hello.'),
  },
  {
    id: 'words in data',
    situation: 'data that is a word, as a sign of life',
    replies: [stream('data: ping\n\n', 'data: OK\n\n', text('Hello.'), STOP, DONE)],
    expected: answered('Hello.'),
  },
  {
    id: 'no blank line at the end',
    situation: 'the last event lacks its blank line',
    replies: [stream(text('Hel'), `data: ${JSON.stringify(text('lo.'))}`)],
    expected: answered('Hello.'),
  },
  {
    id: 'null fields',
    situation: 'null for delta, choices, content and tool_calls',
    replies: [
      stream(
        { choices: null },
        chunk(null),
        chunk({ role: null, content: null, tool_calls: null, reasoning_content: null, refusal: null }),
        call(null, { index: 0, function: null }),
        text('Hello.'),
        STOP,
        DONE,
      ),
    ],
    expected: answered('Hello.'),
  },
  {
    id: 'message in a chunk',
    situation: 'message instead of delta in a chunk',
    replies: [stream({ choices: [{ message: { content: 'Hello.' }, finish_reason: 'stop' }] }, DONE)],
    expected: answered('Hello.'),
  },
  {
    id: 'usage of a choice',
    situation: 'usage inside the choice (Moonshot, go-moonshot#17)',
    replies: [
      stream(text('Hello.'), {
        choices: [{ delta: {}, finish_reason: 'stop', usage: { prompt_tokens: 19, completion_tokens: 13 } }],
      }),
    ],
    expected: { ...answered('Hello.'), records: [{ units_by_kind: { input_tokens: 19, output_tokens: 13 } }] },
  },
  {
    id: 'usage of groq',
    situation: 'usage under x_groq',
    replies: [
      stream(text('Hello.'), { ...STOP, x_groq: { usage: { prompt_tokens: 19, completion_tokens: 13 } } }, DONE),
    ],
    expected: { ...answered('Hello.'), records: [{ units_by_kind: { input_tokens: 19, output_tokens: 13 } }] },
  },
  {
    id: 'growing usage',
    situation: 'usage with each chunk, growing: the last one counts (Gemini, ogx#5122)',
    replies: [
      stream(
        { ...text('Hel'), usage: { prompt_tokens: 4, completion_tokens: 1 } },
        { ...text('lo.'), usage: { prompt_tokens: 4, completion_tokens: 2 } },
        { ...STOP, usage: { prompt_tokens: 4, completion_tokens: 3 } },
        DONE,
      ),
    ],
    expected: { ...answered('Hello.'), records: [{ units_by_kind: { input_tokens: 4, output_tokens: 3 } }] },
  },
  {
    id: 'negative usage',
    situation: 'usage that is negative or larger than any context',
    replies: [
      stream(text('Hello.'), STOP, { choices: [], usage: { prompt_tokens: -1, completion_tokens: 1e30 } }, DONE),
    ],
    expected: { ...answered('Hello.'), records: [{ estimated: true }] },
  },
  {
    id: 'error in the stream',
    situation: 'an error after HTTP 200 that can pass: the request is repeated (OpenRouter, OmniRoute#8210)',
    replies: [stream({ choices: [], error: { code: 502, message: 'Worker limit', metadata: {} } })],
    expected: { end: 'completed', requests: 2, answer: 'Done.' },
  },
  {
    id: 'error_type',
    situation: 'error_type and error_message beside choices: null (hermes-agent#65738)',
    replies: [stream({ choices: null, error_type: 'BadRequestError', error_message: 'too long', status_code: 400 })],
    expected: { end: 'failed', requests: 1, error: { retryable: false } },
  },
  {
    id: 'error event',
    situation: 'a named SSE event error that can pass',
    replies: [stream('event: error\ndata: {"type":"overloaded_error","message":"busy"}\n\n')],
    expected: { end: 'completed', requests: 2, answer: 'Done.' },
  },
  {
    id: 'empty errors',
    situation: 'error fields in every chunk that are empty',
    replies: [
      stream(
        { ...text('Hel'), error: null, error_type: null, error_message: '' },
        { ...text('lo.'), error: {}, status_code: 0 },
        { ...STOP, error: '' },
        DONE,
      ),
    ],
    expected: answered('Hello.'),
  },
  {
    id: 'error of a choice',
    situation: 'an error inside the choice (OpenRouter)',
    replies: [stream({ choices: [{ finish_reason: 'error', error: { code: 429, message: 'busy' } }] })],
    expected: { end: 'completed', requests: 2, answer: 'Done.' },
  },
  {
    id: 'both tags',
    situation: 'a text about both tags',
    replies: [stream(text('Write <think> and </think>.'), STOP, DONE)],
    expected: answered('Write <think> and </think>.'),
  },
  {
    id: 'vLLM error object',
    situation: 'an error object without error (vLLM, object: "error")',
    replies: [replied(400, { object: 'error', message: 'bad', type: 'BadRequestError', param: null, code: 400 })],
    expected: { end: 'failed', requests: 1, error: { retryable: false } },
  },
  {
    id: 'finish error',
    situation: 'finish_reason error without an error object',
    replies: [stream(chunk({}, 'error'), DONE)],
    expected: { end: 'completed', requests: 2, answer: 'Done.' },
  },
  {
    id: 'insufficient quota',
    situation: 'HTTP 429 that no waiting ends (insufficient_quota)',
    replies: [replied(429, { error: { type: 'insufficient_quota', code: 'insufficient_quota', message: 'pay' } })],
    expected: { end: 'failed', requests: 1, error: { retryable: false } },
  },
  {
    id: 'context length',
    situation: 'the conversation is longer than the context',
    replies: [
      replied(400, {
        error: {
          message: "This model's maximum context length is 4096 tokens.",
          type: 'invalid_request_error',
          param: 'messages',
          code: 'context_length_exceeded',
        },
      }),
    ],
    expected: { end: 'failed', requests: 1, error: { retryable: false, reason: 'context_length' } },
  },
  {
    id: 'content filter by HTTP',
    situation: 'HTTP 400 content_filter (Azure)',
    replies: [replied(400, { error: { message: 'filtered', param: 'prompt', code: 'content_filter', status: 400 } })],
    expected: { end: 'failed', requests: 1, error: { retryable: false, reason: 'content_filter' } },
  },
  {
    id: 'text cut by the bound',
    situation: 'text, then finish length',
    replies: [stream(text('Half an ans'), chunk({}, 'length'), DONE)],
    expected: { ...answered('Half an ans'), completed: { finish_reason: 'length' } },
  },
  {
    id: 'MAX_TOKENS',
    situation: 'the finish reason of Gemini for the output bound',
    replies: [stream(text('Half'), chunk({}, 'MAX_TOKENS'), DONE)],
    expected: { ...answered('Half'), completed: { finish_reason: 'length' } },
  },
  {
    id: 'temperature',
    situation: 'temperature is refused (reasoning models, vscode#255504)',
    settings: { temperature: 0.1 },
    replies: [
      replied(400, {
        error: {
          message: "Unsupported value: 'temperature' does not support 0.1 with this model.",
          param: 'temperature',
          code: 'unsupported_value',
        },
      }),
    ],
    expected: { end: 'completed', requests: 2, answer: 'Done.' },
  },
  {
    id: 'three parameters',
    situation: 'three parameters are refused one after another',
    settings: { temperature: 0.1 },
    replies: [
      replied(400, unsupported('max_tokens')),
      replied(400, unsupported('temperature')),
      replied(400, unsupported('stream_options')),
    ],
    expected: { end: 'completed', requests: 4, answer: 'Done.' },
  },
  {
    id: 'reasoning',
    situation: 'reasoning in the field of OpenRouter and newer vLLM',
    replies: [stream(chunk({ reasoning: 'Hmm.' }), text('Hello.'), STOP, DONE)],
    expected: { ...answered('Hello.'), reasoning: 'Hmm.' },
  },
  {
    id: 'reasoning in both',
    situation: 'the same reasoning in two fields of a chunk counts once',
    replies: [stream(chunk({ reasoning: 'Hmm.', reasoning_content: 'Hmm.' }), text('Hello.'), STOP, DONE)],
    expected: { ...answered('Hello.'), reasoning: 'Hmm.' },
  },
  {
    id: 'reasoning_details',
    situation: 'reasoning_details must come back in the order of their pieces (OpenRouter)',
    replies: [
      stream(
        chunk({ reasoning: 'I ', reasoning_details: [{ type: 'reasoning.text', text: 'I ', index: 0 }] }),
        chunk({
          reasoning: 'count.',
          reasoning_details: [{ type: 'reasoning.text', text: 'count.', index: 0, signature: 's' }],
        }),
        whole(),
        CALLS,
        DONE,
      ),
    ],
    expected: {
      ...ranOnce,
      sent: [{ reasoning_details: [{ type: 'reasoning.text', text: 'I count.', index: 0, signature: 's' }] }, {}],
    },
  },
  {
    id: 'end of thinking only',
    situation: 'the chat template holds <think>, so that only </think> arrives',
    replies: [stream(text('Hmm. Well.'), text('</think>'), text('\n\nHello!'), STOP, DONE)],
    expected: answered('Hello!'),
  },
  {
    id: 'think later',
    situation: '<think> inside a text is text',
    replies: [stream(text('The tag <think> begins it.'), STOP, DONE)],
    expected: { ...answered('The tag <think> begins it.'), reasoning: '' },
  },
  {
    id: 'thinking without end',
    situation: '<think> that the output bound cuts',
    replies: [stream(text('<think>I think and'), text(' think'), chunk({}, 'length'), DONE)],
    expected: { end: 'failed', requests: 1, error: { retryable: false, reason: 'length' } },
  },
  {
    id: 'no name in the tool',
    situation: 'a name with blanks around it',
    replies: [
      stream(call({ index: 0, id: 'c', function: { name: ' count\n', arguments: '{"limit":5}' } }), CALLS, DONE),
    ],
    expected: ranOnce,
  },
  {
    id: 'prefix of the name',
    situation: 'the prefix functions. before the name (Kimi, Gemini)',
    replies: [
      stream(
        call({ index: 0, id: 'functions.count:0', function: { name: 'functions.count', arguments: '{"limit":5}' } }),
        CALLS,
      ),
    ],
    expected: ranOnce,
  },
  {
    id: 'many choices',
    situation: 'a second choice that was not asked for',
    replies: [
      stream(
        { choices: [{ index: 1, delta: { content: 'B' } }] },
        text('A.'),
        { choices: [{ index: 1, delta: {}, finish_reason: 'stop' }] },
        STOP,
        DONE,
      ),
    ],
    expected: answered('A.'),
  },
  {
    id: 'HTML',
    situation: 'a page of a proxy instead of a reply',
    replies: [{ status: 200, headers: { 'content-type': 'text/html' }, body: '<html>Log in</html>' }],
    expected: { end: 'failed', requests: 1, error: { retryable: false } },
  },
];

export const MODEL_INPUTS: readonly ModelInput[] = [...REPORTED, ...FURTHER];
