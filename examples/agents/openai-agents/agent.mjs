/** An agent of the OpenAI agents SDK behind Tollgate, of kind http: it uses the tools of the gateway through MCP. */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import { Agent, MCPServerStreamableHttp, OpenAIProvider, Runner, setTracingDisabled } from '@openai/agents';

const { AGENT_SECRET = '', MODEL_URL: baseURL, MODEL_KEY: apiKey, MODEL_NAME: model } = process.env;
/** Requests that are older could have been recorded. */
const MAX_AGE_SECONDS = 300;

// Traces of the SDK go to OpenAI by default.
setTracingDisabled(true);
const runner = new Runner({ modelProvider: new OpenAIProvider({ baseURL, apiKey, useResponses: false }) });

function isSigned(header, body) {
  const [, time, signature] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header ?? '') ?? [];
  if (AGENT_SECRET === '' || !time || Math.abs(Date.now() / 1_000 - Number(time)) > MAX_AGE_SECONDS) return false;
  const expected = createHmac('sha256', AGENT_SECRET).update(`${time}.${body}`).digest();
  return timingSafeEqual(expected, Buffer.from(signature, 'hex'));
}

/** Yields the lines of the response. The token of the run allows the tools that agents.json lists, for this user. */
async function* run({ message, history, instructions, tools }, signal) {
  const headers = { authorization: `Bearer ${tools?.token}` };
  const gateway = tools && new MCPServerStreamableHttp({ url: tools.mcp_url, requestInit: { headers } });
  await gateway?.connect();
  try {
    const agent = new Agent({ name: 'example', model, instructions, mcpServers: gateway ? [gateway] : [] });
    const earlier = history.map(({ role, text }) => ({
      role,
      ...(role === 'user' ? { content: text } : { status: 'completed', content: [{ type: 'output_text', text }] }),
    }));
    const result = await runner.run(agent, [...earlier, { role: 'user', content: message }], { stream: true, signal });
    for await (const delta of result.toTextStream()) yield { type: 'text', delta };
    await result.completed;
    const { inputTokens: input_tokens, outputTokens: output_tokens } = result.state.usage;
    yield { type: 'done', final_response: result.finalOutput, usage: { input_tokens, output_tokens } };
  } finally {
    await gateway?.close();
  }
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  if (!isSigned(request.headers['tollgate-signature'], body)) return response.writeHead(401).end();
  // A closed connection means that the run was cancelled.
  const cancelled = new AbortController();
  response.on('close', () => cancelled.abort());
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  try {
    for await (const line of run(JSON.parse(body), cancelled.signal)) response.write(`${JSON.stringify(line)}\n`);
  } catch (error) {
    console.error(error);
    response.write(`${JSON.stringify({ type: 'error', code: 'MODEL_FAILED', retryable: true })}\n`);
  }
  response.end();
});
server.listen(Number(process.env.PORT ?? 9001), () => console.log(`listening on ${server.address().port}`));
