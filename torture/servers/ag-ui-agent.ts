import { createServer, type IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

/** An agent that speaks AG-UI: it answers with a few pieces of text, some milliseconds apart. */
const { PORT = '0' } = process.env;
const PIECE_MS = 20;

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

const server = createServer(async (request, response) => {
  response.on('error', () => {});
  const text = await bodyOf(request).catch(() => '');
  if (text === '') {
    response.writeHead(404).end();
    return;
  }
  const { threadId, runId } = JSON.parse(text) as { readonly threadId: string; readonly runId: string };
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const send = (event: object) => response.write(`data: ${JSON.stringify(event)}\n\n`);
  const messageId = `message-${runId}`;
  send({ type: 'RUN_STARTED', threadId, runId });
  send({ type: 'TEXT_MESSAGE_START', messageId, role: 'assistant' });
  for (const delta of ['I am ', 'an agent ', 'in another process.']) {
    await delay(PIECE_MS);
    send({ type: 'TEXT_MESSAGE_CONTENT', messageId, delta });
  }
  send({ type: 'TEXT_MESSAGE_END', messageId });
  send({ type: 'RUN_FINISHED', threadId, runId });
  response.end();
});

server.listen(Number(PORT), '127.0.0.1');
