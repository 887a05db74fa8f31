import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { io } from 'socket.io-client';
import { WebSocket } from 'ws';

export interface StreamOptions {
  readonly url: string;
  readonly token: string;
  /** A text that each counted event has once. */
  readonly marker: string;
  readonly onEvents: (count: number) => void;
}

/** Opens a stream or connection that counts the events it receives. @returns a function that closes it */
export type OpenStream = (options: StreamOptions) => Promise<() => void>;

interface HttpRequest {
  readonly path: string;
  readonly accept?: string;
  readonly body?: object;
}

async function send({ url, token }: StreamOptions, { path, accept = 'text/event-stream', body }: HttpRequest) {
  const headers = { authorization: `Bearer ${token}`, accept, 'content-type': 'application/json' };
  const sent = request(url + path, { method: body ? 'POST' : 'GET', headers, agent: false });
  sent.end(body && JSON.stringify(body));
  const [response]: IncomingMessage[] = await once(sent, 'response');
  if (!response || (response.statusCode ?? 500) >= 300) throw new Error(`${path}: ${response?.statusCode}`);
  return { sent, response };
}

/** Counts the marker in the bytes of a response, also where a chunk divides it. */
async function stream(options: StreamOptions, http: HttpRequest): Promise<() => void> {
  const { marker, onEvents } = options;
  const { sent, response } = await send(options, http);
  let rest = '';
  response.setEncoding('latin1').on('data', (chunk: string) => {
    const pieces = (rest + chunk).split(marker);
    rest = pieces.at(-1)?.slice(1 - marker.length) ?? '';
    if (pieces.length > 1) onEvents(pieces.length - 1);
  });
  response.on('error', () => undefined);
  return () => void sent.destroy();
}

async function webSocket({ url, token, marker, onEvents }: StreamOptions): Promise<() => void> {
  const headers = { authorization: `Bearer ${token}` };
  const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, { headers, perMessageDeflate: false });
  const welcome = once(socket, 'message');
  socket.on('message', (data) => String(data).includes(marker) && onEvents(1));
  await welcome;
  return () => socket.close();
}

async function socketIo({ url, token, onEvents }: StreamOptions): Promise<() => void> {
  const socket = io(url, { auth: { token }, transports: ['websocket'], forceNew: true, reconnection: false });
  socket.on('agent_thinking', () => onEvents(1));
  await new Promise((resolve) => socket.once('connection_established', resolve));
  return () => void socket.close();
}

const QUESTION = 'How is my workload doing?';
const CHAT = { id: 'chat-1', messages: [{ id: 'm', role: 'user', parts: [{ type: 'text', text: QUESTION }] }] };
const INPUT = {
  threadId: 'chat-1',
  runId: 'run-1',
  messages: [{ id: 'm', role: 'user', content: QUESTION }],
  protocolVersion: '1.0',
};
const agUi = (options: StreamOptions, accept: string) => {
  return stream(options, { path: '/v1/agui/default', accept, body: INPUT });
};

/** Starts a run first: the stream of a run over plain HTTP is a request of its own. */
async function runEvents(options: StreamOptions): Promise<() => void> {
  const { response } = await send(options, { path: '/v1/runs', body: { message: QUESTION } });
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  const { run_id } = JSON.parse(Buffer.concat(chunks).toString()) as { run_id: string };
  return stream(options, { path: `/v1/runs/${run_id}/events` });
}

/** The front ends. A stream over HTTP starts a run; the connections of Tollgate's own protocol have all events. */
export const FRONT_ENDS: Readonly<Record<string, OpenStream>> = {
  'raw WebSocket': webSocket,
  'Socket.IO': socketIo,
  'events of a run (SSE)': runEvents,
  'AI SDK': (options) => stream(options, { path: '/v1/chat', body: CHAT }),
  'AG-UI, JSON': (options) => agUi(options, 'text/event-stream'),
  'AG-UI, protobuf': (options) => agUi(options, 'application/vnd.ag-ui.event+proto'),
};
