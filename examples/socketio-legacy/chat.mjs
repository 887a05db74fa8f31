import { randomUUID } from 'node:crypto';
import { io } from 'socket.io-client';

const { TOLLGATE_URL: url, TOLLGATE_TOKEN } = process.env;
let token = TOLLGATE_TOKEN;
/** Where to resume: docs/protocol.md, "Resume". */
let position;

// A function, so that each reconnect sends the latest token and position.
const socket = io(url, { auth: (send) => send({ token, ...position }), transports: ['websocket'] });

socket.on('connection_established', ({ epoch, seq }) => {
  position ??= { epoch, after: seq };
  ask();
});
socket.on('token_refreshed', ({ access_token }) => {
  token = access_token ?? token;
});
socket.on('resume_failed', ({ epoch, oldest_seq }) => {
  position = { epoch, after: Math.max(0, oldest_seq - 1) };
  console.error('Some events are lost.');
});
socket.onAny((type, { seq, ...fields } = {}) => {
  if (typeof seq !== 'number' || type === 'connection_established') return;
  // A repetition after a resume.
  if (seq <= position.after) return;
  position.after = seq;
  if (fields.request_id === requestId) show(type, fields);
});
socket.on('connect_error', ({ message, data }) => {
  console.error(data?.code ?? message);
  // Socket.IO does not try again after a refusal by the gateway.
  if (!socket.active && data?.retryable) setTimeout(() => socket.connect(), data.retry_after_ms ?? 1_000);
});

/** Under the same id the gateway starts one run, so asking again after a reconnect is safe. */
const requestId = randomUUID();
function ask() {
  socket.emit('agent_request', { message: process.argv[2] ?? 'Hello', request_id: requestId });
}

function show(type, { thought, tool_name, final_response, error }) {
  console.log(type, thought ?? tool_name ?? final_response ?? error?.message ?? '');
  if (['agent_completed', 'agent_failed', 'agent_cancelled'].includes(type)) socket.disconnect();
}
