import { createServer, type IncomingMessage } from 'node:http';

/**
 * A model behind OpenAI's chat completions. It calls the tool `guarded` for a message `Approve <key>`, and then reports
 * the result; every other message gets a short text. Its answer depends on nothing else, so any instance can continue.
 */
const { PORT = '0' } = process.env;

interface Asked {
  readonly messages: readonly { readonly role: string; readonly content: string | null }[];
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

function replyTo({ messages }: Asked): { readonly deltas: readonly object[]; readonly reason: string } {
  const last = messages.at(-1);
  const [, key] = /^Approve (\S+)$/.exec(last?.role === 'user' ? (last.content ?? '') : '') ?? [];
  if (key === undefined) {
    const words = last?.role === 'tool' ? ['The tool ', 'has answered.'] : ['I am ', 'a small ', 'model.'];
    return { deltas: words.map((content) => ({ content })), reason: 'stop' };
  }
  const call = { name: 'guarded', arguments: JSON.stringify({ key }) };
  return {
    deltas: [{ tool_calls: [{ index: 0, id: `call_${key}`, type: 'function', function: call }] }],
    reason: 'tool_calls',
  };
}

const server = createServer(async (request, response) => {
  response.on('error', () => {});
  const text = await bodyOf(request).catch(() => '');
  if (text === '') {
    response.writeHead(404).end();
    return;
  }
  const { deltas, reason } = replyTo(JSON.parse(text));
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const send = (fields: object) => {
    response.write(
      `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', model: 'small', ...fields })}\n\n`,
    );
  };
  for (const delta of deltas) send({ choices: [{ index: 0, delta, finish_reason: null }] });
  send({ choices: [{ index: 0, delta: {}, finish_reason: reason }] });
  send({ choices: [], usage: { prompt_tokens: 20, completion_tokens: 5 } });
  response.end('data: [DONE]\n\n');
});

server.listen(Number(PORT), '127.0.0.1');
