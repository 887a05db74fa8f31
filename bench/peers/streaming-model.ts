import { createServer, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

/** How the model speaks. */
export interface StreamSettings {
  readonly port: number;
  readonly tokens: number;
  /** Milliseconds from one token to the next; 0 sends all of them at once. */
  readonly tokenMs: number;
}

/** An OpenAI-compatible endpoint that streams so many tokens to whoever asks, each in a chunk of its own. */
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
    // By the time since the beginning: timers that are late do not add up.
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
