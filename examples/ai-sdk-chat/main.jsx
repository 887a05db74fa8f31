import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport } from 'ai';
import { StrictMode, useEffect } from 'react';
import { createRoot } from 'react-dom/client';

const query = new URLSearchParams(location.search);
const id = query.get('chat') ?? 'chat-1';
const transport = new DefaultChatTransport({
  api: `${query.get('url') ?? 'http://localhost:8000'}/v1/chat`,
  // Your own server would give the page its token, at each request.
  headers: async () => ({ Authorization: `Bearer ${query.get('token')}` }),
});

const RETRY_MS = 500;

/** What the page itself keeps over a reload. Of an answer in progress it needs no more than its id. */
const stored = JSON.parse(sessionStorage.getItem(id) ?? '[]');

/** A lost connection, or an error that Tollgate marks as temporary, such as a node that stops. */
function isTemporary(error) {
  if (error instanceof TypeError) return true;
  try {
    return JSON.parse(error.message).error.retryable === true;
  } catch {
    return error.statusCode >= 500;
  }
}

/** Continues the answer after its stream is lost. A message that no gateway has answered is sent again: once is enough. */
function useReconnect({ status, error, messages, resumeStream, sendMessage }) {
  const isLost = status === 'error' && isTemporary(error);
  const isAnswered = messages.at(-1)?.role !== 'user';
  // Each attempt that fails has an error of its own, which starts the next one.
  useEffect(() => {
    if (!isLost || !error) return;
    const timer = setTimeout(() => (isAnswered ? resumeStream() : sendMessage()), RETRY_MS);
    return () => clearTimeout(timer);
  }, [isLost, error, isAnswered, resumeStream, sendMessage]);
  return isLost;
}

function Chat() {
  const chat = useChat({ id, transport, messages: stored, resume: true });
  const isReconnecting = useReconnect(chat);
  const { messages, status, error, sendMessage } = chat;
  useEffect(() => sessionStorage.setItem(id, JSON.stringify(messages)), [messages]);
  return (
    <>
      <main>
        {messages.map((message) => (
          <article key={message.id} className={message.role}>
            {message.parts.map(partOf)}
          </article>
        ))}
      </main>
      <p id="status">{isReconnecting ? 'reconnecting' : status}</p>
      {error && !isReconnecting && <p role="alert">{error.message}</p>}
      <form action={(form) => void sendMessage({ text: form.get('message') })}>
        <input name="message" placeholder="message" required />
        <button type="submit">Ask</button>
      </form>
    </>
  );
}

/** Parts are only ever added, so their position identifies them. */
function partOf(part, at) {
  if (part.type === 'text') return <p key={at}>{part.text}</p>;
  if (part.type === 'reasoning') {
    return (
      <p key={at} className="reasoning">
        {part.text}
      </p>
    );
  }
  if (!part.type.startsWith('tool-')) return null;
  return (
    <p key={at} className="tool">
      {part.type.slice('tool-'.length)} {JSON.stringify(part.input)} → {part.errorText ?? JSON.stringify(part.output)}
    </p>
  );
}

createRoot(document.querySelector('#root')).render(
  <StrictMode>
    <Chat />
  </StrictMode>,
);
