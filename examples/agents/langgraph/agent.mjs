/** A LangGraph agent behind Tollgate, over AG-UI: its interrupts become input requests of the run. */
import { createServer } from 'node:http';
import { EventEncoder } from '@ag-ui/encoder';
import { FakeListChatModel } from '@langchain/core/utils/testing';
import { Command, interrupt, MemorySaver, MessagesAnnotation, StateGraph } from '@langchain/langgraph';

/** In the place of a model: `new ChatOpenAI({ model: '…' })` of @langchain/openai, or any other chat model. */
const model = new FakeListChatModel({ responses: ['The trip is booked.'] });

const graph = new StateGraph(MessagesAnnotation)
  .addNode('ask', () => {
    const city = interrupt({ message: 'Which city?' });
    return { messages: [{ role: 'user', content: `The city is ${city}.` }] };
  })
  .addNode('answer', async ({ messages }) => ({ messages: [await model.invoke(messages)] }))
  .addEdge('__start__', 'ask')
  .addEdge('ask', 'answer')
  .addEdge('answer', '__end__')
  // With a checkpointer in a database, an interrupted graph survives a restart of this process.
  .compile({ checkpointer: new MemorySaver() });

/** Yields the AG-UI events of one request. Tollgate sends the answer to an interrupt in `resume`. */
async function* run({ threadId, runId, messages, resume }) {
  yield { type: 'RUN_STARTED', threadId, runId };
  const [answer] = resume ?? [];
  const text = messages.findLast(({ role }) => role === 'user').content;
  const input = answer
    ? new Command({ resume: answer.payload ?? null })
    : { messages: [{ role: 'user', content: text }] };
  const config = { configurable: { thread_id: threadId }, streamMode: ['messages', 'updates'] };
  const interrupts = [];
  for await (const [mode, chunk] of await graph.stream(input, config)) {
    if (mode === 'messages') {
      const [{ id, text: delta }] = chunk;
      if (delta) yield { type: 'TEXT_MESSAGE_CHUNK', messageId: id, role: 'assistant', delta };
    }
    for (const { id, value } of (mode === 'updates' && chunk.__interrupt__) || []) {
      interrupts.push({ id, reason: 'input', message: value.message });
    }
  }
  const outcome = interrupts.length > 0 ? { type: 'interrupt', interrupts } : { type: 'success' };
  yield { type: 'RUN_FINISHED', threadId, runId, outcome };
}

const server = createServer(async (request, response) => {
  if (request.headers.authorization !== `Bearer ${process.env.AGENT_KEY}`) return response.writeHead(401).end();
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const input = JSON.parse(Buffer.concat(chunks).toString());
    const isInput = typeof input?.threadId === 'string' && Array.isArray(input.messages) && input.messages.length > 0;
    if (!isInput) return response.writeHead(400).end();
    const encoder = new EventEncoder();
    response.writeHead(200, { 'content-type': encoder.getContentType() });
    for await (const event of run(input)) response.write(encoder.encodeSSE(event));
    response.end();
  } catch (error) {
    console.error(error);
    // A stream without RUN_FINISHED is an error for Tollgate, and so is this status.
    response.headersSent ? response.destroy() : response.writeHead(500).end();
  }
});
server.listen(Number(process.env.PORT ?? 9001), () => console.log(`listening on ${server.address().port}`));
