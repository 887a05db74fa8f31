import { base64url } from './forged-tokens.ts';
import { nodeUrl } from './nodes.ts';
import { OPCODE, openRawSocket, type RawSocket } from './raw-socket.ts';
import { mintToken } from './tokens.ts';
import { until } from './until.ts';

type Outcome = string;

/** A table of a hundred tokens is presented five hundred times. */
const QUICKLY = { everyMs: 4 };
const ENGINE_PATH = '/socket.io/?EIO=4&transport=websocket';
/** What a client would like to have done: sent right behind the token, without waiting for what comes of it. */
const REQUESTS = [
  { type: 'tools_list', payload: {} },
  { type: 'agent_request', payload: { message: 'hello', request_id: 'behind-a-forged-token' } },
];

const TOOLS_LIST = { jsonrpc: '2.0', id: 1, method: 'tools/list' };

/** A frame of the server. All of them count, so that an answer to a request would be seen. */
interface ServerAnswer {
  readonly type: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * Presents a token as each of these does, with requests right behind it, and tells what came of it:
 * `<close code> <error code>`, or `user <id>`. Whatever else a refused client was sent stands behind it.
 */
const PRESENTATIONS = {
  header: (token, url) => {
    return handshake(openRawSocket({ url, path: '/ws/secure', headers: { Authorization: `Bearer ${token}` } }));
  },
  subprotocol: (token, url) => {
    const offered = `jwt-auth, jwt.${base64url(token)}`;
    return handshake(openRawSocket({ url, path: '/ws/secure', headers: { 'Sec-WebSocket-Protocol': offered } }));
  },
  message: async (token, url) => {
    const raw = openRawSocket({ url, path: '/ws' });
    await until(() => raw.frames[0], QUICKLY);
    raw.sendFrame(JSON.stringify({ type: 'auth', token }));
    return outcomeOf(raw, () => messagesOf(raw).slice(1));
  },
  socketio: async (token, url) => {
    const raw = openRawSocket({ url, path: ENGINE_PATH });
    await until(() => raw.frames[0], QUICKLY);
    raw.sendFrame(`40${JSON.stringify({ token })}`);
    // Not before the answer: Socket.IO ends an engine that says something in between, without saying why.
    await until(() => packets(raw).length > 0 || raw.closeFrame);
    return outcomeOf(
      raw,
      () => packets(raw),
      ({ type, payload }) => `42${JSON.stringify([type, payload])}`,
    );
  },
  ticket: async (token, url) => {
    const response = await fetch(new URL('/v1/tickets', url), {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    });
    const { error } = (await response.json()) as { error?: { code?: string } };
    // A head that Node refuses never gets as far as the error table.
    return error?.code === undefined ? `${response.status}` : `${response.status} ${error.code}`;
  },
  mcp: async (token, url) => {
    const response = await fetch(new URL('/mcp', url), {
      method: 'POST',
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
      },
      body: JSON.stringify(TOOLS_LIST),
    });
    const { error } = (await response.json()) as { error?: { data?: { code?: string } } };
    return error?.data?.code === undefined ? `${response.status}` : `${response.status} ${error.data.code}`;
  },
  mcpSocket: (token, url) => {
    const raw = openRawSocket({ url, path: '/ws/mcp', headers: { Authorization: `Bearer ${token}` } });
    return handshake(raw, rpcMessagesOf, () => JSON.stringify(TOOLS_LIST));
  },
  /** As the newer token of a live connection of the same user, which a refused one does not end. */
  refresh: async (token, url) => {
    const older = mintToken(subjectOf(token), { expiresInSeconds: 60 });
    const raw = openRawSocket({ url, path: '/ws/secure', headers: { Authorization: `Bearer ${older.token}` } });
    await until(() => messagesOf(raw).some(accepts), QUICKLY);
    raw.sendFrame(JSON.stringify({ type: 'token_refresh', payload: { token } }));
    const answer = await until(
      () => messagesOf(raw).find(({ type }) => type === 'error' || type === 'token_refreshed'),
      QUICKLY,
    );
    raw.sendFrame(JSON.stringify({ type: 'ping', payload: {} }));
    await until(() => messagesOf(raw).some(({ type }) => type === 'pong'), QUICKLY);
    raw.destroy();
    return answer.type === 'error' ? `${answer.fields.code}` : answer.type;
  },
} satisfies Record<string, (token: string, url: string) => Promise<Outcome>>;

export type Way = keyof typeof PRESENTATIONS;
/** Those of any gateway. */
const ALL: readonly Way[] = ['header', 'subprotocol', 'message', 'socketio', 'ticket', 'mcp'];
/** Those of a gateway that accepts the tokens of the shared stack. */
export const EVERYWHERE: readonly Way[] = [...ALL, 'mcpSocket', 'refresh'];

interface Presentation {
  readonly url?: string;
  readonly ways?: readonly Way[];
  /** One after the other, for a token that is good: a user may not have as many connections as there are ways. */
  readonly inTurn?: boolean;
}

/** What came of a token, by the way it was presented. */
export async function present(
  token: string,
  { url = nodeUrl(0), ways = ALL, inTurn = false }: Presentation = {},
): Promise<Partial<Record<Way, Outcome>>> {
  const outcomes: [Way, Outcome][] = [];
  const attempt = async (way: Way) => void outcomes.push([way, await PRESENTATIONS[way](token, url)]);
  if (inTurn) for (const way of ways) await attempt(way);
  else await Promise.all(ways.map(attempt));
  return Object.fromEntries(outcomes);
}

/** Refused in each of these ways, with the code in the form of each. */
export function refusedWith(code: string, ways = ALL): Partial<Record<Way, Outcome>> {
  const closed = `1008 ${code}`;
  const outcomes = {
    header: closed,
    subprotocol: closed,
    message: closed,
    // An engine of Socket.IO is closed without a code, after its `connect_error`.
    socketio: `1005 ${code}`,
    ticket: `401 ${code}`,
    mcp: `401 ${code}`,
    mcpSocket: closed,
    refresh: code,
  };
  return Object.fromEntries(ways.map((way) => [way, outcomes[way]]));
}

/** Accepted in each of these ways as this user. */
export function acceptedAs(userId: string, ways = ALL): Partial<Record<Way, Outcome>> {
  const user = `user ${userId}`;
  const outcomes = {
    header: user,
    subprotocol: user,
    message: user,
    socketio: user,
    ticket: '201',
    mcp: '200',
    mcpSocket: user,
    refresh: 'token_refreshed',
  };
  return Object.fromEntries(ways.map((way) => [way, outcomes[way]]));
}

async function handshake(raw: RawSocket, frames = messagesOf, encode?: (request: Request) => string): Promise<Outcome> {
  const { status } = await raw.answer;
  return status === 101 ? outcomeOf(raw, () => frames(raw), encode) : `HTTP ${status}`;
}

type Request = (typeof REQUESTS)[number];

async function outcomeOf(
  raw: RawSocket,
  frames: () => ServerAnswer[],
  encode: (request: Request) => string = JSON.stringify,
): Promise<Outcome> {
  for (const request of REQUESTS) raw.sendFrame(encode(request));
  const [first, ...others] = await until(
    () => (raw.closeFrame || frames().some(accepts) ? frames() : undefined),
    QUICKLY,
  );
  raw.destroy();
  if (first && accepts(first)) return `user ${first.fields.user_id}`;
  const ends = [`${raw.closeFrame?.code} ${first?.fields.code}`, ...others.map(({ type }) => `then ${type}`)];
  return ends.join(' ');
}

function accepts({ fields }: ServerAnswer): boolean {
  return typeof fields.user_id === 'string';
}

/** The frames of a raw WebSocket, flat or in envelopes. */
function messagesOf(raw: RawSocket): ServerAnswer[] {
  return texts(raw).map((text) => {
    const { type, payload, ...fields } = JSON.parse(text);
    return { type, fields: payload ?? fields };
  });
}

/** The frames of `/ws/mcp`. */
function rpcMessagesOf(raw: RawSocket): ServerAnswer[] {
  return texts(raw).map((text) => {
    const { params, error } = JSON.parse(text);
    if (error) return { type: 'error', fields: error.data };
    const { type = 'answer', ...fields } = params ?? {};
    return { type, fields };
  });
}

/** The subject that a token names, for what it is worth. */
function subjectOf(token: string): { sub?: string } {
  try {
    const { sub } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return typeof sub === 'string' && /^user_[\w-]+$/.test(sub) ? { sub } : {};
  } catch {
    return {};
  }
}

/** What Socket.IO's client would see: the refusal (44) and the events (42), without the engine's own packets. */
function packets(raw: RawSocket): ServerAnswer[] {
  return texts(raw).flatMap((text) => {
    if (text.startsWith('44')) return [{ type: 'connect_error', fields: JSON.parse(text.slice(2)).data }];
    if (!text.startsWith('42')) return [];
    const [type, fields] = JSON.parse(text.slice(2));
    return [{ type, fields }];
  });
}

function texts(raw: RawSocket): string[] {
  return raw.frames.filter(({ opcode }) => opcode === OPCODE.text).map(({ payload }) => `${payload}`);
}
