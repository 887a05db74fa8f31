import { base64url } from './forged-tokens.ts';
import { nodeUrl } from './nodes.ts';
import { OPCODE, openRawSocket, type RawSocket } from './raw-socket.ts';
import { mintToken } from './tokens.ts';
import { until } from './until.ts';

type Outcome = string;

/** A table of a hundred tokens is presented five hundred times. */
const QUICKLY = { everyMs: 4 };
const ENGINE_PATH = '/socket.io/?EIO=4&transport=websocket';
/** Requests sent right after the token, without waiting for the outcome. */
const REQUESTS = [
  { type: 'tools_list', payload: {} },
  { type: 'agent_request', payload: { message: 'hello', request_id: 'behind-a-forged-token' } },
];

const TOOLS_LIST = { jsonrpc: '2.0', id: 1, method: 'tools/list' };

/** A frame of the server. All frames are compared, so that an answer to a request would be visible. */
interface ServerAnswer {
  readonly type: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * Presents a token in each of these ways, followed by requests, and returns the outcome: `<close code> <error code>`,
 * or `user <id>`. Further frames that a refused client received follow.
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
    // Not before the answer: Socket.IO closes an engine that sends something in between, without a reason.
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
    // A head that Node refuses never reaches the error table.
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
  /** As the newer token of a live connection of the same user, which stays open if the token is refused. */
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
/** The ways of any gateway. */
const ALL: readonly Way[] = ['header', 'subprotocol', 'message', 'socketio', 'ticket', 'mcp'];
/** The ways of a gateway that accepts the tokens of the shared stack. */
export const EVERYWHERE: readonly Way[] = [...ALL, 'mcpSocket', 'refresh'];

interface Presentation {
  readonly url?: string;
  readonly ways?: readonly Way[];
  /** One after the other, for a valid token: a user may not have as many connections as there are ways. */
  readonly inTurn?: boolean;
}

/** Returns the outcome per way of presentation. */
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

/** Returns the outcomes of a refusal with this code in each of these ways. */
export function refusedWith(code: string, ways = ALL): Partial<Record<Way, Outcome>> {
  const closed = `1008 ${code}`;
  const outcomes = {
    header: closed,
    subprotocol: closed,
    message: closed,
    // Socket.IO closes its engine without a code, after `connect_error`.
    socketio: `1005 ${code}`,
    ticket: `401 ${code}`,
    mcp: `401 ${code}`,
    mcpSocket: closed,
    refresh: code,
  };
  return Object.fromEntries(ways.map((way) => [way, outcomes[way]]));
}

/** Returns the outcomes of acceptance as this user. */
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

/** Decodes the frames of a raw WebSocket, flat or in envelopes. */
function messagesOf(raw: RawSocket): ServerAnswer[] {
  return texts(raw).map((text) => {
    const { type, payload, ...fields } = JSON.parse(text);
    return { type, fields: payload ?? fields };
  });
}

/** Decodes the frames of `/ws/mcp`. */
function rpcMessagesOf(raw: RawSocket): ServerAnswer[] {
  return texts(raw).map((text) => {
    const { params, error } = JSON.parse(text);
    if (error) return { type: 'error', fields: error.data };
    const { type = 'answer', ...fields } = params ?? {};
    return { type, fields };
  });
}

/** Returns the subject of an unverified token. */
function subjectOf(token: string): { sub?: string } {
  try {
    const { sub } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return typeof sub === 'string' && /^user_[\w-]+$/.test(sub) ? { sub } : {};
  } catch {
    return {};
  }
}

/**
 * Returns the packets for Socket.IO's client: the refusal (44) and the events (42), without the engine's own packets.
 */
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
