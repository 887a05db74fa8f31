import { appendFileSync } from 'node:fs';
import { type CallToolResult, Server } from '@modelcontextprotocol/server';
import { serveMcp } from '../../scripts/lib/mcp-http.ts';

/**
 * An MCP server whose tools `add` and `guarded` write their key to a file, once per execution, before it answers. The file survives the
 * death of this process, so it has every execution.
 */
const { PORT = '0', EXECUTIONS = '' } = process.env;
const INPUT = { type: 'object' as const, properties: { key: { type: 'string' } }, required: ['key'] };

function toolServer(): Server {
  const server = new Server({ name: 'torture', version: '1' }, { capabilities: { tools: {} } });
  server.setRequestHandler('tools/list', () => ({
    tools: ['add', 'guarded'].map((name) => ({ name, inputSchema: INPUT })),
  }));
  server.setRequestHandler('tools/call', ({ params }): CallToolResult => {
    appendFileSync(EXECUTIONS, `${String(params.arguments?.key)}\n`);
    return { content: [{ type: 'text', text: 'Added.' }] };
  });
  return server;
}

await serveMcp(toolServer, Number(PORT));
