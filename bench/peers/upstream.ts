import { Server } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { serveMcp } from '../../scripts/lib/mcp-http.ts';

/** An MCP server with one tool that returns its argument: over HTTP on the given port, or over stdio without one. */
function echoServer(): Server {
  const server = new Server({ name: 'bench-upstream', version: '1' }, { capabilities: { tools: {} } });
  const inputSchema = { type: 'object' as const, properties: { words: { type: 'string' } } };
  server.setRequestHandler('tools/list', () => ({ tools: [{ name: 'echo', inputSchema }] }));
  server.setRequestHandler('tools/call', ({ params }) => {
    return { content: [{ type: 'text', text: String(params.arguments?.words) }] };
  });
  return server;
}

const [port] = process.argv.slice(2);
if (port === undefined) serveStdio(echoServer);
else await serveMcp(echoServer, Number(port));
