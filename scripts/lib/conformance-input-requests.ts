import {
  type CallToolResult,
  type GetPromptResult,
  type InputRequiredResult,
  type InputRequiredSpec,
  inputRequired,
  inputResponse,
  type ServerContext,
} from '@modelcontextprotocol/server';

type Answer = CallToolResult | InputRequiredResult;
type Requests = NonNullable<InputRequiredSpec['inputRequests']>;
type InputRequest = (context: ServerContext) => Answer;

const done = (words: string): CallToolResult => ({ content: [{ type: 'text', text: words }] });

/** A form with one required field. */
function form(message: string, field: string) {
  const properties = { [field]: { type: 'string' as const } };
  return inputRequired.elicit({ message, requestedSchema: { type: 'object', properties, required: [field] } });
}

const confirmation = inputRequired.elicit({
  message: 'Please confirm',
  requestedSchema: { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] },
});

const sampled = (words: string, maxTokens: number) =>
  inputRequired.createMessage({ messages: [{ role: 'user', content: { type: 'text', text: words } }], maxTokens });

/** Requests input until every request has an answer. */
function inputRequestFor(requests: Requests, words: string, requestState?: string): InputRequest {
  return ({ mcpReq }) => {
    const open = Object.keys(requests).filter((key) => inputResponse(mcpReq.inputResponses, key).kind === 'missing');
    if (open.length === 0) return done(words);
    return inputRequired({ inputRequests: requests, ...(requestState === undefined ? {} : { requestState }) });
  };
}

/** The tools of the suite's `input-required-result-…` scenarios, as the suite describes them. */
export const QUESTION_TOOLS: Readonly<Record<string, InputRequest>> = {
  test_input_required_result_elicitation: ({ mcpReq }) => {
    const answer = inputResponse(mcpReq.inputResponses, 'user_name');
    if (answer.kind !== 'elicit')
      return inputRequired({ inputRequests: { user_name: form('What is your name?', 'name') } });
    return done(`Hello, ${answer.content?.name}!`);
  },
  test_input_required_result_sampling: inputRequestFor(
    { capital_question: sampled('What is the capital of France?', 100) },
    'It was said.',
  ),
  test_input_required_result_list_roots: inputRequestFor(
    { client_roots: inputRequired.listRoots() },
    'They were listed.',
  ),
  test_input_required_result_request_state: ({ mcpReq }) => {
    const confirm = inputResponse(mcpReq.inputResponses, 'confirm');
    if (confirm.kind !== 'missing' && mcpReq.requestState() === 'opaque') return done('state-ok');
    return inputRequired({
      inputRequests: { confirm: confirmation },
      requestState: 'opaque',
    });
  },
  test_input_required_result_multiple_inputs: inputRequestFor(
    {
      user_name: form('What is your name?', 'name'),
      greeting: sampled('Generate a greeting', 50),
      client_roots: inputRequired.listRoots(),
    },
    'All three were answered.',
    'opaque',
  ),
  test_input_required_result_multi_round: ({ mcpReq }) => {
    const step = mcpReq.requestState();
    if (step === 'second') return done('Both steps are done.');
    if (step === 'first') {
      const step2 = form('Step 2: What is your favorite color?', 'color');
      return inputRequired({ inputRequests: { step2 }, requestState: 'second' });
    }
    return inputRequired({
      inputRequests: { step1: form('Step 1: What is your name?', 'name') },
      requestState: 'first',
    });
  },
  // The gateway seals and checks the request state, so the tool does not.
  test_input_required_result_tampered_state: inputRequestFor({ confirm: confirmation }, 'Taken.', 'x'),
  test_input_required_result_capabilities: ({ mcpReq }) => {
    const capabilities = Reflect.get(mcpReq.envelope ?? {}, 'io.modelcontextprotocol/clientCapabilities');
    const can = (name: string) => typeof capabilities === 'object' && capabilities !== null && name in capabilities;
    return inputRequired({
      inputRequests: {
        ...(can('elicitation') ? { name: form('What is your name?', 'name') } : {}),
        ...(can('sampling') ? { words: sampled('Say something', 50) } : {}),
      },
    });
  },
  test_missing_capability: inputRequestFor({ words: sampled('Say something', 50) }, 'It was said.'),
  test_streaming_elicitation: inputRequestFor({ name: form('What is your name?', 'name') }, 'Asked and answered.'),
};

export const QUESTION_PROMPT = 'test_input_required_result_prompt';

export function inputRequestPrompt({ mcpReq }: ServerContext): GetPromptResult | InputRequiredResult {
  const answer = inputResponse(mcpReq.inputResponses, 'user_context');
  if (answer.kind !== 'elicit') {
    const user_context = form('What context should the prompt use?', 'context');
    return inputRequired({ inputRequests: { user_context } });
  }
  return {
    messages: [{ role: 'user', content: { type: 'text', text: `In the context of ${answer.content?.context}` } }],
  };
}
