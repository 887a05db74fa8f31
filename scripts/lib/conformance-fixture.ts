import { setTimeout as delay } from 'node:timers/promises';
import {
  type CallToolResult,
  type GetPromptResult,
  type InputRequiredResult,
  type Prompt,
  ProtocolError,
  type Resource,
  ResourceNotFoundError,
  Server,
  type ServerContext,
  type Tool,
} from '@modelcontextprotocol/server';
import { inputRequestPrompt, QUESTION_PROMPT, QUESTION_TOOLS } from './conformance-input-requests.ts';

/** A PNG of one pixel and a WAV without samples: the smallest files of their kinds. */
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=';
const PAUSE_MS = 50;

const text = (words: string) => ({ type: 'text' as const, text: words });
const image = { type: 'image' as const, data: PNG, mimeType: 'image/png' };
const NO_ARGUMENTS = { type: 'object' as const, properties: {} };

type Run = (context: ServerContext) => CallToolResult | InputRequiredResult | Promise<CallToolResult>;

/** The tools that the suite's scenarios call, as the suite describes them. */
const TOOLS: Readonly<Record<string, Run>> = {
  test_simple_text: () => ({ content: [text('This is a simple text response for testing.')] }),
  test_image_content: () => ({ content: [image] }),
  test_audio_content: () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }),
  test_embedded_resource: () => ({
    content: [embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')],
  }),
  test_multiple_content_types: () => ({
    content: [
      text('Multiple content types test:'),
      image,
      embedded('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}'),
    ],
  }),
  test_error_handling: () => ({
    isError: true,
    content: [text('This tool intentionally returns an error for testing')],
  }),
  async test_tool_with_progress({ mcpReq }) {
    const progressToken = mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
      }
      await delay(PAUSE_MS);
    }
    return { content: [text('Three steps are done.')] };
  },
  async test_tool_with_logging({ mcpReq }) {
    for (const words of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await mcpReq.log('info', words);
      await delay(PAUSE_MS);
    }
    return { content: [text('Three lines are logged.')] };
  },
  async test_logging_tool({ mcpReq }) {
    await mcpReq.log('info', 'For whoever asked for it');
    return { content: [text('One line is logged.')] };
  },
};

const ALL_TOOLS: Readonly<Record<string, Run>> = { ...TOOLS, ...QUESTION_TOOLS };

/** A tool whose schema has keywords of JSON Schema 2020-12 that the gateway must preserve. */
const SCHEMA_TOOL: Tool = {
  name: 'json_schema_2020_12_tool',
  description: 'Tool with JSON Schema 2020-12 features',
  inputSchema: {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    $defs: { address: { $anchor: 'addressDef', type: 'object', properties: { street: { type: 'string' } } } },
    properties: { name: { type: 'string' }, address: { $ref: '#/$defs/address' } },
    allOf: [{ anyOf: [{ required: ['name'] }, { required: ['address'] }] }],
    if: { required: ['address'] },
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema.
    then: { required: ['name'] },
    else: {},
    additionalProperties: false,
  },
};

const RESOURCES: readonly Resource[] = [
  { uri: 'test://static-text', name: 'Text', description: 'A text', mimeType: 'text/plain' },
  { uri: 'test://static-binary', name: 'Image', description: 'An image', mimeType: 'image/png' },
  { uri: 'test://watched-resource', name: 'Watched', description: 'A text', mimeType: 'text/plain' },
];
const TEMPLATE = { uriTemplate: 'test://template/{id}/data', name: 'Data', description: 'Data by its id' };

const argument = (name: string) => ({ name, description: `The ${name}`, required: true });
const PROMPTS: Readonly<
  Record<string, { readonly row: Prompt; messages(args: Record<string, string>): GetPromptResult['messages'] }>
> = {
  test_simple_prompt: {
    row: { name: 'test_simple_prompt', description: 'A text' },
    messages: () => [{ role: 'user', content: text('This is a simple prompt for testing.') }],
  },
  test_prompt_with_arguments: {
    row: {
      name: 'test_prompt_with_arguments',
      description: 'A text with two arguments',
      arguments: [argument('arg1'), argument('arg2')],
    },
    messages: ({ arg1, arg2 }) => [
      { role: 'user', content: text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`) },
    ],
  },
  test_prompt_with_embedded_resource: {
    row: {
      name: 'test_prompt_with_embedded_resource',
      description: 'A resource to process',
      arguments: [argument('resourceUri')],
    },
    messages: ({ resourceUri = '' }) => [
      { role: 'user', content: embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.') },
      { role: 'user', content: text('Please process the embedded resource above.') },
    ],
  },
  test_prompt_with_image: {
    row: { name: 'test_prompt_with_image', description: 'An image to look at' },
    messages: () => [
      { role: 'user', content: image },
      { role: 'user', content: text('Please analyze the image above.') },
    ],
  },
};

/** Returns the content of a `TOOL_SERVERS` file that names the fixture. */
export function fixtureServers(url: string): object {
  const names = [...Object.keys(ALL_TOOLS), SCHEMA_TOOL.name];
  const tools = Object.fromEntries(names.map((name) => [name, { permission: 'basic', units: 0 }]));
  const resources = { permission: 'basic', allow: ['test://*'] };
  const prompts = { permission: 'basic', allow: ['test_*'] };
  const asks = ['elicitation', 'sampling', 'roots'];
  return { servers: [{ name: 'fixture', url, asks, tools, resources, prompts }] };
}

/** The server that the official conformance suite expects, as far as its scenarios describe it. */
export function conformanceFixture(): Server {
  const capabilities = { tools: {}, resources: {}, prompts: {}, completions: {}, logging: {} };
  const server = new Server({ name: 'conformance-fixture', version: '1' }, { capabilities });
  server.setRequestHandler('tools/list', () => ({
    tools: [
      ...Object.keys(ALL_TOOLS).map((name) => ({ name, description: name, inputSchema: NO_ARGUMENTS })),
      SCHEMA_TOOL,
    ],
  }));
  server.setRequestHandler('tools/call', ({ params }, context) => {
    const run = ALL_TOOLS[params.name] ?? (params.name === SCHEMA_TOOL.name ? () => ({ content: [] }) : undefined);
    if (!run) throw new ProtocolError(-32602, 'Unknown tool');
    return run(context);
  });
  server.setRequestHandler('resources/list', () => ({ resources: [...RESOURCES] }));
  server.setRequestHandler('resources/templates/list', () => ({ resourceTemplates: [TEMPLATE] }));
  server.setRequestHandler('resources/read', ({ params: { uri } }) => ({ contents: [contents(uri)] }));
  server.setRequestHandler('prompts/list', () => ({
    prompts: [
      ...Object.values(PROMPTS).map(({ row }) => row),
      { name: QUESTION_PROMPT, description: 'Asks for its context' },
    ],
  }));
  server.setRequestHandler('prompts/get', ({ params }, context) => {
    if (params.name === QUESTION_PROMPT) return inputRequestPrompt(context);
    const prompt = PROMPTS[params.name];
    if (!prompt) throw new ProtocolError(-32602, 'Unknown prompt');
    return { messages: prompt.messages(params.arguments ?? {}) };
  });
  server.setRequestHandler('completion/complete', ({ params }) => {
    const values = ['paris', 'park', 'party'].filter((value) => value.startsWith(params.argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });
  return server;
}

function embedded(uri: string, mimeType: string, words: string) {
  return { type: 'resource' as const, resource: { uri, mimeType, text: words } };
}

function contents(uri: string) {
  if (uri === 'test://static-text') {
    return { uri, mimeType: 'text/plain', text: 'This is the content of the static text resource.' };
  }
  if (uri === 'test://static-binary') return { uri, mimeType: 'image/png', blob: PNG };
  if (uri === 'test://watched-resource') return { uri, mimeType: 'text/plain', text: 'It never changes.' };
  const id = /^test:\/\/template\/([^/]+)\/data$/.exec(uri)?.[1];
  if (id === undefined) throw new ResourceNotFoundError(uri);
  return {
    uri,
    mimeType: 'application/json',
    text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }),
  };
}
