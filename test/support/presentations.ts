import { base64url } from './forged-tokens.ts';
import { nodeUrl } from './nodes.ts';
import { OPCODE, openRawSocket, type RawSocket } from './raw-socket.ts';
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

/** A frame of the server. All of them count, so that an answer to a request would be seen. */
interface Told {
  readonly type: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * Presents a token as each of these does, with requests right behind it, and tells what came of it:
 * `<close code> <error code>`, or `user <id>`. Whatever else a refused client was sent stands behind it.
 */
const WAYS = {
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
    return outcomeOf(raw, () => told(raw).slice(1));
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
} satisfies Record<string, (token: string, url: string) => Promise<Outcome>>;

export type Way = keyof typeof WAYS;
const ALL = Object.keys(WAYS) as Way[];

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
  const attempt = async (way: Way) => void outcomes.push([way, await WAYS[way](token, url)]);
  if (inTurn) for (const way of ways) await attempt(way);
  else await Promise.all(ways.map(attempt));
  return Object.fromEntries(outcomes);
}

/** Refused everywhere, and told why as each place tells it. */
export function refusedWith(code: string): Record<Way, Outcome> {
  const closed = `1008 ${code}`;
  // An engine of Socket.IO is closed without a code, after its `connect_error`.
  return { header: closed, subprotocol: closed, message: closed, socketio: `1005 ${code}`, ticket: `401 ${code}` };
}

/** Let in everywhere as this user. */
export function acceptedAs(userId: string): Record<Way, Outcome> {
  const user = `user ${userId}`;
  return { header: user, subprotocol: user, message: user, socketio: user, ticket: '201' };
}

async function handshake(raw: RawSocket): Promise<Outcome> {
  const { status } = await raw.answer;
  return status === 101 ? outcomeOf(raw, () => told(raw)) : `HTTP ${status}`;
}

type Request = (typeof REQUESTS)[number];

async function outcomeOf(
  raw: RawSocket,
  frames: () => Told[],
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

function accepts({ fields }: Told): boolean {
  return typeof fields.user_id === 'string';
}

/** The frames of a raw WebSocket, flat or in envelopes. */
function told(raw: RawSocket): Told[] {
  return texts(raw).map((text) => {
    const { type, payload, ...fields } = JSON.parse(text);
    return { type, fields: payload ?? fields };
  });
}

/** What Socket.IO's client would see: the refusal (44) and the events (42), without the engine's own packets. */
function packets(raw: RawSocket): Told[] {
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
