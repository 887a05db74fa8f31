import type { StackAddresses } from '../stack.ts';
import { mintToken, type PlanName } from '../tokens.ts';
import { ask, Frames, shortly } from './carriers.ts';
import type { Surface } from './meter.ts';
import { FEW_TEXTS, FEW_VALUES, type Shape, TEXTS, VALUES } from './shapes.ts';

const FRAME_SIZES = [2_000, 60_000] as const;
/** Its allowances do not run out. */
const PLAN: PlanName = 'enterprise';
const ENGINE = '/socket.io/?EIO=4&transport=websocket';
const POLLING = '/socket.io/?EIO=4&transport=polling';
/** A tenth of the allowed payload: input after a separator costs a decoder the most. */
const PAYLOAD_SIZES = [600, 6_000] as const;

/** Whether every shape is sent to each surface, or one of each kind. */
interface Matrix {
  readonly all: boolean;
}

/** Opens a connection if there is none, or if the server has closed the one before. */
class Line {
  readonly #open: () => Promise<Frames>;
  #frames: Promise<Frames> | undefined;
  /** Sends one message after the other, because replies do not name their request. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(open: () => Promise<Frames>) {
    this.#open = open;
  }

  say(frame: string, answered: (frames: Frames) => Promise<unknown>): Promise<unknown> {
    this.#turn = this.#turn.then(async () => {
      let frames = await this.#frames;
      if (!frames || frames.closed) {
        this.#frames = this.#open();
        frames = await this.#frames;
      }
      frames.send(frame);
      await answered(frames);
    });
    return this.#turn;
  }
}

function bearer(of: StackAddresses, plan: PlanName = PLAN): { readonly authorization: string } {
  return { authorization: `Bearer ${mintToken({ plan }, { stack: of }).token}` };
}

function urlOf({ gateways }: StackAddresses): string {
  return String(gateways[0]?.url);
}

/** Uses a new connection per input, because an unauthenticated one may send few messages. */
function once(of: StackAddresses, path: string, frame: (input: string) => string) {
  const url = urlOf(of);
  return async (input: string) => {
    const frames = await Frames.open({ url, path });
    frames.send(frame(input));
    await shortly(frames.next());
    frames.end();
  };
}

/** Frames of clients before authentication. */
export function strangerSurfaces(of: StackAddresses, { all }: Matrix): Surface[] {
  const values = all ? VALUES : FEW_VALUES;
  const family = 'frames before authentication';
  const json = [
    '…',
    '{"type":…}',
    '{"type":"ping","timestamp":…}',
    '{"type":"auth","token":…}',
    '{"type":"x","payload":…}',
  ];
  const serviceAuth = ['{"type":"service_auth","service_id":…}', '{"type":"service_auth","context":…}'];
  const socketIo = [
    '…',
    '40…',
    '40/…',
    '40{"token":"…"}',
    '42["ping","…"]',
    '45…',
    '451-["a","…"]',
    '4…',
    '2…',
    '3…',
    '6…',
  ];
  return [
    ...[...json, ...serviceAuth].map((template) => ({
      family: `${family}, raw`,
      name: `/ws ${template}`,
      sizes: FRAME_SIZES,
      shapes: values,
      send: once(of, '/ws', filled(template)),
    })),
    ...socketIo.map((template) => ({
      family: `${family}, Socket.IO`,
      name: `${ENGINE} ${template}`,
      sizes: FRAME_SIZES,
      shapes: template.includes('"') || template.startsWith('40') ? TEXTS : FEW_TEXTS,
      send: once(of, ENGINE, filled(template)),
    })),
    {
      family: `${family}, Socket.IO`,
      name: `${ENGINE} 40 and a JSON value`,
      sizes: FRAME_SIZES,
      shapes: values,
      send: once(of, ENGINE, (input) => `40${input}`),
    },
    ...pollingSurfaces(of, values),
  ];
}

const PACKETS: readonly Shape[] = ['4', '40', '40/x', '2', '3', '6', 'b', '42["a"]', '41', '45', ''].map((packet) => ({
  name: `packets ${JSON.stringify(packet)}`,
  make: (size) => `${packet}\x1e`.repeat(size / (packet.length + 1)).slice(0, -1),
}));

/** Bodies of long polling: a payload contains any number of packets. */
function pollingSurfaces(of: StackAddresses, values: readonly Shape[]): Surface[] {
  const url = urlOf(of);
  const send = async (body: string) => {
    const { text } = await ask({ url, path: POLLING });
    const { sid } = JSON.parse(text.slice(1));
    const session = `${POLLING}&sid=${sid}`;
    await ask({ url, path: session, method: 'POST', headers: { 'content-type': 'text/plain;charset=UTF-8' }, body });
  };
  const family = 'bodies of long polling, before authentication';
  return [
    { family, name: 'packets', sizes: PAYLOAD_SIZES, shapes: PACKETS, send },
    { family, name: 'one packet', sizes: FRAME_SIZES, shapes: TEXTS, send: (input: string) => send(`4${input}`) },
    { family, name: 'CONNECT', sizes: FRAME_SIZES, shapes: values, send: (input: string) => send(`40${input}`) },
  ];
}

function filled(template: string) {
  return (input: string) => template.replaceAll('…', () => input);
}

interface Field {
  readonly type: string;
  /** The payload; `…` stands for a JSON value. */
  readonly payload: string;
  /** Frames that end the reply; a `pong` answers a ping sent right after the message. */
  readonly ends?: readonly string[];
}

const TOOL_ENDS = ['tool_result', 'error'];
const RUN_ENDS = ['agent_completed', 'agent_failed', 'error'];

const FIELDS: readonly Field[] = [
  { type: 'agent_request', payload: '{"thread_id":"thread_cpu","message":…}', ends: RUN_ENDS },
  { type: 'agent_request', payload: '{"message":"hello","agent":…}', ends: RUN_ENDS },
  { type: 'agent_request', payload: '{"message":"hello","thread_id":…}', ends: RUN_ENDS },
  { type: 'agent_request', payload: '{"message":"hello","thread_id":"thread_cpu","request_id":…}', ends: RUN_ENDS },
  { type: 'agent_request', payload: '{"message":"hello","thread_id":"thread_cpu","other":…}', ends: RUN_ENDS },
  { type: 'agent_cancel', payload: '{"run_id":…}' },
  ...['create_thread', 'get_thread_history', 'list_agents', 'get_agent_status', 'analyze_workload'].flatMap((tool) =>
    toolCalls(tool),
  ),
  ...['cost_analyzer', 'latency_analyzer', 'system_health', 'get_metrics'].flatMap((tool) => toolCalls(tool)),
  { type: 'tool_call', payload: '{"tool":…}', ends: TOOL_ENDS },
  { type: 'tool_call', payload: '{"tool":"list_agents","idempotency_key":…}', ends: TOOL_ENDS },
  { type: 'tool_call', payload: '{"tool":"create_thread","arguments":{"title":…}}', ends: TOOL_ENDS },
  { type: 'tool_call', payload: '{"tool":"get_thread_history","arguments":{"thread_id":…}}', ends: TOOL_ENDS },
  { type: 'tool_call', payload: '{"tool":"get_agent_status","arguments":{"run_id":…}}', ends: TOOL_ENDS },
  { type: 'auth', payload: '{"other":…}' },
  { type: 'token_refresh', payload: '{"token":…}' },
  { type: 'resume', payload: '{"after":0,"epoch":…}' },
  { type: 'resume', payload: '{"epoch":"x","after":…}' },
  { type: 'run_status', payload: '{"run_id":…}' },
  { type: 'thread_history', payload: '{"thread_id":…}' },
  { type: 'thread_history', payload: '{"thread_id":"thread_cpu","before":…}' },
  { type: 'thread_history', payload: '{"thread_id":"thread_cpu","limit":…}' },
  { type: 'typing', payload: '{"thread_id":…}' },
  { type: 'ping', payload: '{"timestamp":…}' },
  { type: 'usage_summary', payload: '{"request_id":…}' },
  { type: 'tools_list', payload: '…' },
  { type: 'threads_list', payload: '…' },
  { type: 'heartbeat', payload: '…' },
];

/** The arguments as a whole, and one that the tool does not define. */
function toolCalls(tool: string): Field[] {
  return ['…', '{"other":…}'].map((input) => ({
    type: 'tool_call',
    payload: `{"tool":"${tool}","arguments":${input}}`,
    ends: TOOL_ENDS,
  }));
}

const PONG = '"marker"';

/** Every field of every message of a user, over raw WebSocket. */
export function messageSurfaces(of: StackAddresses, { all }: Matrix): Surface[] {
  const values = all ? VALUES : FEW_VALUES;
  return FIELDS.map(({ type, payload, ends }) => {
    const line = new Line(() => Frames.open({ url: urlOf(of), path: '/ws/secure', headers: bearer(of) }));
    return {
      family: `message \`${type}\``,
      name: `${type} ${payload}`,
      sizes: FRAME_SIZES,
      // An agent reads the text, so it gets every shape.
      shapes: payload.includes('"message":…') ? VALUES : values,
      send: (input: string) =>
        line.say(`{"type":"${type}","payload":${filled(payload)(input)}}`, async (frames) => {
          if (ends) await frames.until((frame) => ends.some((end) => frame.startsWith(`{"type":"${end}"`)));
          // The pong shows that everything before it has been processed, and resets the count of bad frames.
          frames.send('{"type":"ping","payload":{"timestamp":"marker"}}');
          await frames.until((frame) => frame.startsWith('{"type":"pong"') && frame.includes(PONG));
        }),
    };
  });
}

const MCP_PARAMS: readonly [string, string][] = [
  ['tools/call', '…'],
  ['tools/call', '{"name":…}'],
  ['tools/call', '{"name":"list_agents","arguments":…}'],
  ['tools/call', '{"name":"create_thread","arguments":{"title":…}}'],
  ['tools/call', '{"name":"list_agents","_meta":…}'],
  ['tools/call', '{"name":"list_agents","_meta":{"tollgate/idempotencyKey":…}}'],
  ['tools/call', '{"name":"list_agents","_meta":{"progressToken":…}}'],
  ['tools/call', '{"name":"list_agents","inputResponses":…}'],
  ['tools/call', '{"name":"list_agents","requestState":…}'],
  ['tools/list', '…'],
  ['tools/list', '{"cursor":…}'],
  ['resources/read', '{"uri":…}'],
  ['resources/list', '{"cursor":…}'],
  ['prompts/get', '{"name":…}'],
  ['prompts/get', '{"name":"x","arguments":…}'],
  ['completion/complete', '{"ref":…}'],
  ['initialize', '…'],
  ['initialize', '{"protocolVersion":"2025-11-25","capabilities":…,"clientInfo":{"name":"x","version":"1"}}'],
  ['initialize', '{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":…}'],
  ['server/discover', '{"_meta":…}'],
  ['x', '…'],
];

/** Requests of MCP, over both of its transports. */
export function mcpSurfaces(of: StackAddresses, { all }: Matrix): Surface[] {
  const values = all ? VALUES : FEW_VALUES;
  const url = urlOf(of);
  const headers = { ...bearer(of), 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  const bodies = [
    ...MCP_PARAMS.map(([method, params]) => [`${method} ${params}`, rpc(method, params)] as const),
    ...(['…', '{"jsonrpc":"2.0","id":…,"method":"ping"}', '{"jsonrpc":"2.0","id":1,"method":…}'] as const).map(
      (body) => [body, body] as const,
    ),
  ];
  return bodies.flatMap(([name, template]) => {
    const line = new Line(() => Frames.open({ url, path: '/ws/mcp', headers: bearer(of) }));
    const shared = { sizes: FRAME_SIZES, shapes: values };
    return [
      {
        ...shared,
        family: 'MCP, `POST /mcp`',
        name: `POST /mcp ${name}`,
        send: (input: string) => ask({ url, path: '/mcp', method: 'POST', headers, body: filled(template)(input) }),
      },
      {
        ...shared,
        family: 'MCP, `/ws/mcp`',
        name: `/ws/mcp ${name}`,
        send: (input: string) =>
          line.say(filled(template)(input), async (frames) => {
            frames.send('{"jsonrpc":"2.0","id":"marker","method":"heartbeat"}');
            await frames.until((frame) => frame.includes(PONG));
          }),
      },
    ];
  });
}

function rpc(method: string, params: string): string {
  return `{"jsonrpc":"2.0","id":1,"method":"${method}","params":${params}}`;
}

/** Events of a client that Socket.IO has connected. */
export function socketIoSurfaces(of: StackAddresses, { all }: Matrix): Surface[] {
  const values = all ? VALUES : FEW_VALUES;
  const url = urlOf(of);
  const { authorization } = bearer(of);
  const open = async () => {
    const frames = await Frames.open({ url, path: ENGINE });
    frames.send(`40${JSON.stringify({ token: authorization })}`);
    await frames.until((frame) => frame.startsWith('40') || frame.startsWith('44'));
    return frames;
  };
  const events = [
    '["ping",…]',
    '["ping",{"timestamp":…}]',
    '[…]',
    '…',
    '["tools_list",…]',
    '["typing",{"thread_id":…}]',
  ];
  return events.map((template) => {
    const line = new Line(open);
    return {
      family: 'events of Socket.IO',
      name: `42${template}`,
      sizes: FRAME_SIZES,
      shapes: values,
      send: (input: string) =>
        line.say(`42${filled(template)(input)}`, async (frames) => {
          frames.send('42["ping",{"timestamp":"marker"}]');
          await frames.until((frame) => frame.includes(PONG));
        }),
    };
  });
}
