import {
  type CallToolResult,
  type InputRequiredResult,
  type Prompt,
  ProtocolError,
  type Resource,
  ResourceNotFoundError,
  Server,
  type ServerContext,
  type Tool,
} from '@modelcontextprotocol/server';

export type RunTool = (
  args: Readonly<Record<string, unknown>>,
  context: ServerContext,
) => CallToolResult | InputRequiredResult | Promise<CallToolResult | InputRequiredResult>;

/** Returns an input request instead of a result, or undefined if no input is needed. */
export type InputFirst = (context: ServerContext) => InputRequiredResult | undefined;

/** The capabilities of a test server; everything can be replaced while it runs. */
export interface ServerScript {
  tools: Record<string, { readonly row?: Partial<Tool>; readonly run: RunTool }>;
  resources?: readonly Resource[];
  templates?: readonly { readonly uriTemplate: string; readonly name: string }[];
  prompts?: readonly Prompt[];
  /** The input that a prompt or a resource requests first. */
  inputFirst?: InputFirst;
}

export const text = (words: string): CallToolResult => ({ content: [{ type: 'text', text: words }] });

/** Returns its arguments. */
export const echo: ServerScript['tools'][string] = {
  row: {
    description: 'Says what it is told.',
    inputSchema: { type: 'object', properties: { words: { type: 'string' } }, required: ['words'] },
  },
  run: ({ words }) => text(String(words)),
};

export function mcpServer(script: ServerScript): Server {
  const { resources, templates, prompts } = script;
  const capabilities = {
    tools: { listChanged: true },
    ...(resources || templates ? { resources: {} } : {}),
    ...(prompts ? { prompts: {}, completions: {} } : {}),
  };
  const server = new Server({ name: 'upstream-of-a-test', version: '1' }, { capabilities });
  server.setRequestHandler('tools/list', () => ({
    tools: Object.entries(script.tools).map(([name, { row }]) => ({
      name,
      inputSchema: { type: 'object' as const },
      ...row,
    })),
  }));
  server.setRequestHandler('tools/call', ({ params }, context) => {
    const tool = script.tools[params.name];
    if (!tool) throw new ProtocolError(-32602, `Unknown tool: ${params.name}`);
    return tool.run(params.arguments ?? {}, context);
  });
  if (resources || templates) {
    server.setRequestHandler('resources/list', () => ({ resources: [...(script.resources ?? [])] }));
    server.setRequestHandler('resources/templates/list', () => ({ resourceTemplates: [...(script.templates ?? [])] }));
    server.setRequestHandler('resources/read', ({ params: { uri } }, context) => {
      const inputRequest = script.inputFirst?.(context);
      if (inputRequest) return inputRequest;
      if (uri.includes('missing')) throw new ResourceNotFoundError(uri);
      const words = uri.includes('large') ? 'x'.repeat(500_000) : `The content of ${uri}`;
      return { contents: [{ uri, text: words }] };
    });
  }
  if (prompts) {
    server.setRequestHandler('prompts/list', () => ({ prompts: [...(script.prompts ?? [])] }));
    server.setRequestHandler('prompts/get', ({ params }, context) => {
      const inputRequest = script.inputFirst?.(context);
      if (inputRequest) return inputRequest;
      const words = `${params.name} ${JSON.stringify(params.arguments ?? {})}`;
      return { messages: [{ role: 'user', content: { type: 'text', text: words } }] };
    });
    server.setRequestHandler('completion/complete', ({ params }) => {
      return { completion: { values: [`${params.argument.value}-completed`] } };
    });
  }
  return server;
}
