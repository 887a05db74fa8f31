import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';

/** An agent of kind `http` for Tollgate, in TypeScript: only Node, no packages. */

const { AGENT_SECRET: secret = '', PORT = '9001' } = process.env;
/** A signature that is older than this may be a recording. */
const MAX_AGE_SECONDS = 300;

interface Task {
  readonly message: string;
  readonly tools: { readonly mcp_url: string; readonly token: string; readonly names: readonly string[] } | null;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

function isSigned(header: string, body: string): boolean {
  const [, time = '', signature = ''] = /^t=(\d{1,12}),v1=([0-9a-f]{64})$/.exec(header) ?? [];
  if (Math.abs(Date.now() / 1_000 - Number(time)) > MAX_AGE_SECONDS) return false;
  const expected = createHmac('sha256', secret).update(`${time}.${body}`).digest();
  return timingSafeEqual(expected, Buffer.from(signature, 'hex'));
}

/** Calls a tool of Tollgate with the rights of the user. */
async function callTool({ mcp_url, token }: NonNullable<Task['tools']>, name: string): Promise<unknown> {
  const response = await fetch(mcp_url, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2025-11-25',
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: {} } }),
  });
  const { result, error } = (await response.json()) as {
    result?: { structuredContent?: unknown };
    error?: { message: string };
  };
  return error ? { error: error.message } : result?.structuredContent;
}

const server = createServer(async (request, response) => {
  const body = await bodyOf(request);
  if (!isSigned(String(request.headers['tollgate-signature'] ?? ''), body)) {
    response.writeHead(401).end();
    return;
  }
  const task: Task = JSON.parse(body);
  const write = (line: object) => response.write(`${JSON.stringify(line)}\n`);
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  write({ type: 'think', text: 'I look which agents there are.' });
  const found = task.tools ? await callTool(task.tools, 'list_agents') : undefined;
  for (const word of `You said: ${task.message}`.split(/(?<= )/)) write({ type: 'text', delta: word });
  if (found !== undefined) write({ type: 'text', delta: ` Agents: ${JSON.stringify(found).slice(0, 200)}` });
  write({ type: 'done' });
  response.end();
});

server.listen(Number(PORT), () => {
  const address = server.address();
  process.stdout.write(`listening on ${typeof address === 'object' ? address?.port : address}\n`);
});
