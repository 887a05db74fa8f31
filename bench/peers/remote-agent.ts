import { createServer, type ServerResponse } from 'node:http';

/** Pieces of the answer: a short turn, so that what Tollgate adds is a visible share of it. */
const PIECES = Array.from({ length: 10 }, (_, at) => `piece ${at} `);
const TEXT = PIECES.join('');
const USAGE = { input_tokens: 7, output_tokens: 10, total_tokens: 17 };

/** Events of the answer in each protocol. */
const ANSWERS: Readonly<Record<string, (body: Readonly<Record<string, unknown>>) => readonly object[]>> = {
  '/http': () => [...PIECES.map((delta) => ({ type: 'text', delta })), { type: 'done' }],
  '/agui': ({ threadId, runId }) => [
    { type: 'RUN_STARTED', threadId, runId },
    { type: 'TEXT_MESSAGE_START', messageId: 'm', role: 'assistant' },
    ...PIECES.map((delta) => ({ type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta })),
    { type: 'TEXT_MESSAGE_END', messageId: 'm' },
    { type: 'RUN_FINISHED', threadId, runId },
  ],
  '/v1/responses': () => {
    const response = { id: 'resp_1', object: 'response', status: 'in_progress', output: [] };
    const item = { id: 'msg_1', type: 'message', role: 'assistant', content: [{ type: 'output_text', text: TEXT }] };
    return [
      { type: 'response.created', response },
      { type: 'response.output_item.added', output_index: 0, item: { ...item, content: [] } },
      ...PIECES.map((delta) => ({ type: 'response.output_text.delta', item_id: 'msg_1', delta })),
      { type: 'response.completed', response: { ...response, status: 'completed', output: [item], usage: USAGE } },
    ].map((event, sequence_number) => ({ ...event, sequence_number }));
  },
  '/a2a': ({ id }) => {
    const task = { id: 'task-1', contextId: 'context-1' };
    const ids = { taskId: task.id, contextId: task.contextId };
    return [
      { task: { ...task, status: { state: 'TASK_STATE_WORKING' } } },
      ...PIECES.map((text, at) => ({
        artifactUpdate: { ...ids, append: at > 0, artifact: { artifactId: 'a', parts: [{ text }] } },
      })),
      { statusUpdate: { ...ids, status: { state: 'TASK_STATE_COMPLETED' } } },
    ].map((result) => ({ jsonrpc: '2.0', id, result }));
  },
};

function answer(path: string, text: string, response: ServerResponse): void {
  const events = ANSWERS[path]?.(JSON.parse(text));
  if (!events) return void response.writeHead(404).end();
  const isLines = path === '/http';
  response.writeHead(200, { 'content-type': isLines ? 'application/x-ndjson' : 'text/event-stream' });
  for (const event of events) {
    const json = JSON.stringify(event);
    response.write(isLines ? `${json}\n` : `data: ${json}\n\n`);
  }
  response.end();
}

/** An agent without a model that answers at once, over all four protocols of remote agents. */
createServer((request, response) => {
  let text = '';
  request.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  request.on('end', () => answer(request.url ?? '', text, response));
}).listen(Number(process.argv[2]), '127.0.0.1');
