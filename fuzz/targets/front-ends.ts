import {
  clientRunId,
  ignoredFields,
  namesOf,
  newMessage,
  RunAgentInput,
  sentResults,
} from '../../src/frontends/ag-ui/input.ts';
import { answersOf } from '../../src/frontends/ai-sdk/answers.ts';
import { ChatBody, chatRun } from '../../src/frontends/ai-sdk/chat-request.ts';
import { clientToolsOf } from '../../src/protocol/client-tools.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { foreignRequest } from '../../src/protocol/forms.ts';
import { FormSchema, InputAnswer } from '../../src/protocol/input.ts';
import { parseFields } from '../../src/protocol/parse-fields.ts';
import { checkedAnswer } from '../../src/runs/input-answer.ts';
import { require, requireSame, type Target } from '../lib/target.ts';

const USER = 'user_1';

/** Text that is no JSON is refused before these parsers. */
function jsonOf(input: Buffer): unknown {
  try {
    return JSON.parse(input.toString('utf8'));
  } catch (cause) {
    throw new TollgateError('JSON_ERROR', { cause });
  }
}

const TOOL = { name: 'pick', description: 'Picks.', parameters: { type: 'object', properties: { a: {} } } };

const agUi: Target = {
  name: 'ag-ui-input',
  seeds: [
    JSON.stringify({
      threadId: 't',
      runId: 'r',
      messages: [{ id: 'm', role: 'user', content: 'Hello' }],
      tools: [TOOL],
    }),
    JSON.stringify({
      ...{ threadId: 't ä', runId: 'r', context: [], state: { a: 1 }, forwardedProps: {}, protocolVersion: '1.0' },
      messages: [{ id: 'm', role: 'tool', toolCallId: 'call_1', content: [{ type: 'text', text: 'x' }], error: 'e' }],
      resume: [{ interruptId: 'input_1', status: 'resolved', payload: { approved: true } }],
    }),
  ],
  words: ['threadId', 'runId', 'messages', 'role', 'user', 'tool', 'content', 'text', 'toolCallId', 'resume', 'tools'],
  run(input) {
    const body = parseFields(RunAgentInput, jsonOf(input));
    requireSame(parseFields(RunAgentInput, body), body, 'a valid input stays as it is');
    const names = namesOf(USER, body);
    require(/^[\w-]{1,64}$/.test(names.threadId), 'the thread has a name of Tollgate');
    require(names.requestId.length <= 128 && /^run_[\w-]{20}$/.test(names.runId), 'the run has names of Tollgate');
    requireSame(namesOf(USER, body), names, 'the same input names the same run');
    const clients = clientRunId(body.threadId, names.requestId);
    if (clients !== undefined) require(clients === body.runId, 'the name of the client is found again');
    ignoredFields(body, undefined);
    for (const { message } of sentResults(body)) require(message.content.isWellFormed(), 'a result is well-formed');
    const message = newMessage(body);
    if (message !== undefined) require(message !== '' && message.isWellFormed(), 'a message is text');
    const tools = clientToolsOf(body.tools);
    requireSame(clientToolsOf(tools), tools, 'valid tools stay as they are');
  },
};

const part = { type: 'tool-pick', toolCallId: 'call_abcdefghijklmnopqrst_1', state: 'output-available', output: 1 };
const approval = { ...part, state: 'approval-responded', approval: { id: 'input_1', approved: true } };
const metadata = { tollgate: { run_id: 'run_abcdefghijklmnopqrst', epoch: 'e', seq: 3 } };

const aiSdk: Target = {
  name: 'ai-sdk-body',
  seeds: [
    JSON.stringify({ id: 'chat-1', messages: [{ id: 'm', role: 'user', parts: [{ type: 'text', text: 'Hello' }] }] }),
    JSON.stringify({ id: 'c', messages: [{ id: 'm', role: 'assistant', parts: [part, approval], metadata }] }),
    JSON.stringify({
      ...{ id: 'c ä', trigger: 'regenerate-message', messageId: 'm', agent: 'triage' },
      messages: [{ role: 'user', parts: [{ type: 'text', text: 'x' }] }],
      tools: [{ name: 'pick', inputSchema: { type: 'object' } }],
    }),
  ],
  words: [
    'id',
    'messages',
    'role',
    'user',
    'assistant',
    'parts',
    'type',
    'text',
    'state',
    'approval',
    'metadata',
    'tools',
  ],
  run(input) {
    const body = parseFields(ChatBody, jsonOf(input));
    requireSame(parseFields(ChatBody, body), body, 'a valid body stays as it is');
    const answers = answersOf(body);
    if (answers) {
      require(Number.isSafeInteger(answers.seq) && answers.seq >= 1, 'a position is a whole number');
      require(answers.approvals.length + answers.results.length <= 64, 'answers are bounded');
      return;
    }
    const run = chatRun(USER, body);
    require(/^[\w-]{1,64}$/.test(run.threadId) && /^run_[\w-]{20}$/.test(run.runId), 'the run has names of Tollgate');
    require(run.message !== '' && run.message.isWellFormed(), 'a message is text');
    const isNamed =
      body.messages.at(-1)?.id !== undefined && body.trigger === 'submit-message' && body.id !== undefined;
    if (isNamed) requireSame(chatRun(USER, body), run, 'the same body names the same run');
  },
};

const CHOICE = { kind: 'choice', message: 'Which?', choices: ['a', 'b'] } as const;

const answer: Target = {
  name: 'input-answer',
  seeds: [
    JSON.stringify([
      { type: 'object', properties: { n: { type: 'string', maxLength: 3 } } },
      { action: 'accept', content: { n: 'x' } },
    ]),
    JSON.stringify([{ type: 'object', properties: { approved: { type: 'boolean' } } }, { action: 'decline' }]),
    JSON.stringify([
      { type: 'object', properties: { a: { type: 'number', minimum: 1 }, b: { type: 'boolean' } }, required: ['a'] },
      { action: 'accept', content: { a: 2, choice: 'a', result: 1 } },
    ]),
    JSON.stringify([
      { type: 'object', properties: { a: { type: 'string', oneOf: [{ const: 'x', title: 'X' }] } } },
      {},
    ]),
  ],
  words: [
    'type',
    'properties',
    'required',
    'string',
    'number',
    'integer',
    'boolean',
    'enum',
    'default',
    'choice',
    'error',
  ],
  run(input) {
    const [schema, given] = Object.values(Object(jsonOf(input)));
    const { request, contentOf } = foreignRequest('Which?', schema);
    if (request.kind === 'form') {
      require(FormSchema.safeParse(request.schema).success, 'a form of another protocol is a form of Tollgate');
    }
    const read = parseFields(InputAnswer, given);
    for (const one of [request, CHOICE, { kind: 'tool', message: 'x' } as const]) {
      const checked = checkedAnswer(one, read);
      requireSame(checkedAnswer(one, checked), checked, 'a valid answer stays as it is');
      if (one === request) contentOf(checked);
    }
  },
};

export const FRONT_END_TARGETS: readonly Target[] = [agUi, aiSdk, answer];
