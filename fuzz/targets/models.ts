import { errorOfBody, responseFault } from '../../src/agents/model/endpoint-errors.ts';
import { bodyEvents } from '../../src/agents/model/event-stream.ts';
import { FAULT_REASONS, ModelFault } from '../../src/agents/model/fault.ts';
import { ReplyReader } from '../../src/agents/model/reply.ts';
import { require, requireSame, type Target } from '../lib/target.ts';

const LIMITS = { textLength: 2_000, reasoningLength: 1_000, calls: 4, argumentsLength: 500 };
const TOOLS = new Set(['count', 'count_days']);
const BOUNDARIES = [1, 7, 64, 65_536];

/** What a reader of the body gets when it arrives in pieces of this size: the reply, or the reason of the fault. */
async function outcomeOf(body: Buffer, pieceBytes: number) {
  let at = 0;
  const read = async () => {
    if (at >= body.length) return undefined;
    at += pieceBytes;
    return body.subarray(at - pieceBytes, at);
  };
  const reader = new ReplyReader(LIMITS, TOOLS);
  let text = '';
  let reasoning = '';
  try {
    let isDone = false;
    for await (const event of bodyEvents(read)) {
      isDone = event === 'done';
      const piece = isDone ? reader.end(true) : reader.append(event === 'done' ? null : event.json);
      text += piece.text;
      reasoning += piece.reasoning;
      if (isDone || reader.full) break;
    }
    if (!isDone) text += reader.end(false).text;
    require(text.length <= LIMITS.textLength && reasoning.length <= LIMITS.reasoningLength, 'texts are bounded');
    return { reply: reader.reply(100), text };
  } catch (error) {
    if (!(error instanceof ModelFault)) throw error;
    return { reason: error.reason };
  }
}

const chunk = (delta: object, more: object = {}) => `data: ${JSON.stringify({ choices: [{ delta, ...more }] })}\n\n`;
const call = (fields: object) => chunk({ tool_calls: [fields] });

const reply: Target = {
  name: 'model-reply',
  seeds: [
    `${chunk({ role: 'assistant', content: 'He' })}: alive\n\n${chunk({ content: 'llo' }, { finish_reason: 'stop' })}data: [DONE]\n\n`,
    `${call({ index: 0, id: 'a', function: { name: 'count', arguments: '{"d' } })}${call({ index: 0, function: { arguments: 'ays":7}' } })}data: [DONE]`,
    `${chunk({ content: '<think>why</think>so' })}data: {"usage":{"prompt_tokens":3,"completion_tokens":2},"choices":[]}\r\n\r\n`,
    JSON.stringify({ choices: [{ message: { content: [{ type: 'text', text: 'x' }] }, finish_reason: 'length' }] }),
    'data: {"error":{"message":"overloaded","code":"overloaded","status":503}}\n\n',
    '{"choices":[{"delta":{"content":"a"}}]}\n{"choices":[{"delta":{"reasoning_content":"b"}}]}\n',
  ],
  words: [
    ...[
      'choices',
      'delta',
      'message',
      'content',
      'tool_calls',
      'function',
      'arguments',
      'name',
      'count',
      'index',
      'id',
    ],
    ...['finish_reason', 'stop', 'length', 'usage', 'error', 'reasoning_content', 'thinking_blocks', 'refusal'],
    ...['data: ', '\n\n', '[DONE]', '<think>', '</think>', 'event: ', ': ', '\r\n'],
  ],
  maxBytes: 8_192,
  packages: ['eventsource-parser'],
  isRefusal: () => false,
  async run(input) {
    const [first, ...others] = await Promise.all(BOUNDARIES.map((bytes) => outcomeOf(input, bytes)));
    for (const other of others) requireSame(other, first, 'the boundaries of the pieces do not matter');
    const { reply: read, text = '' } = first ?? {};
    if (!read) return;
    require(read.text.isWellFormed() && text.toWellFormed().endsWith(read.text), 'the reply has the streamed text');
    require(read.calls.length <= LIMITS.calls + 32, 'calls are bounded');
    require(new Set(read.calls.map(({ id }) => id)).size === read.calls.length, 'each call has an id of its own');
    for (const { arguments: json, name } of read.calls) {
      require(json.length <= LIMITS.argumentsLength && name !== '' && name.length <= 128, 'a call is bounded');
    }
    const { input: sent, output } = read.tokens;
    require([sent, output].every((count) => Number.isSafeInteger(count) && count >= 0), 'tokens are whole numbers');
  },
};

const error: Target = {
  name: 'model-error',
  seeds: [
    '{"error":{"message":"bad","type":"invalid_request_error","param":"tools[0]","code":"x"}}',
    '{"detail":[{"type":"extra_forbidden","loc":["body","seed"],"msg":"x"}]}',
    '{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"{\\"error\\":{\\"code\\":\\"a\\"}}"}}}',
    '[{"error":"rate limit"}]',
    '<html>502',
  ],
  words: ['error', 'message', 'type', 'param', 'code', 'status', 'metadata', 'raw', 'detail', 'loc', 'choices', '429'],
  isRefusal: () => false,
  run(input) {
    const text = input.toString('utf8');
    const found = errorOfBody(text);
    for (const status of [400, 429, 503]) {
      const fault = responseFault(status, found, undefined);
      require(FAULT_REASONS.includes(fault.reason), 'a fault has one of the reasons');
      for (const word of [fault.code, fault.param])
        require(/^[\w.[\]-]{1,64}$/.test(word ?? 'x'), 'words are safe to log');
    }
    require(found.words.length <= 10_000, 'the searched text is bounded');
  },
};

export const MODEL_TARGETS: readonly Target[] = [reply, error];
