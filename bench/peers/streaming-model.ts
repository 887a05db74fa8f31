import { createServer, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

/** Pace and length of the model's output. */
export interface StreamSettings {
  readonly port: number;
  readonly tokens: number;
  /** Milliseconds between two tokens; 0 sends all of them at once. */
  readonly tokenMs: number;
}

/** An OpenAI-compatible endpoint that streams a fixed number of tokens to each request, one chunk per token. */
const settings = JSON.parse(process.argv[2] ?? '') as StreamSettings;

const server = createServer((request, response) => {
  if (request.method === 'GET') return void response.end('ready');
  request.resume();
  request.on('end', () => void speak(response));
});

async function speak(response: ServerResponse): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const startedAt = performance.now();
  for (let token = 0; token < settings.tokens && !response.destroyed; token++) {
    // Due times count from the start, so late timers do not accumulate.
    const due = startedAt + token * settings.tokenMs - performance.now();
    if (settings.tokenMs > 0 && due > 1) await delay(due);
    send(response, { choices: [{ index: 0, delta: { content: `tok${token % 10} ` }, finish_reason: null }] });
  }
  send(response, { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
  send(response, { choices: [], usage: { prompt_tokens: 200, completion_tokens: settings.tokens } });
  response.end('data: [DONE]\n\n');
}

function send(response: ServerResponse, fields: object): void {
  const chunk = { id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'bench', ...fields };
  response.write(`data: ${JSON.stringify(chunk)}\n\n`);
}

server.listen(settings.port, '127.0.0.1');
