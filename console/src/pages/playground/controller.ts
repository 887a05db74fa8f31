import { signal } from '@preact/signals';
import {
  type ConnectionState,
  type Fields,
  type Identity,
  type InputAnswer,
  type InputRequest,
  type OpenTransport,
  sseTransport,
  Tollgate,
  type TollgateError,
  type ToolDescription,
  webSocketTransport,
} from '@tollgate/client';
import { path, request } from '../../api/http.ts';
import { clockTime } from '../../lib/format.ts';
import { accessToken } from '../../session/session.ts';
import { Tap } from './tap.ts';
import { isOpen, isRunEvent, newTurn, type Turn, withEntry, withEvent } from './turns.ts';

export type TransportName = 'websocket' | 'socketio' | 'sse';

export interface Finding {
  readonly title: string;
  readonly text: string;
  readonly tone: 'ok' | 'warn' | 'bad' | 'accent';
}

const MAX_TURNS = 50;
/** Messages of one rate limit experiment: plans above it need a load test. */
const MAX_BURST = 5_000;
/** Messages that are sent without an answer: less than the queue of a connection holds, which has a limit of its own. */
const BURST = 32;
const ANSWER_MS = 3_000;
const FURTHER_MS = 200;
const MAX_EXTRA_CONNECTIONS = 10;

/** The playground's connection over @tollgate/client, what arrived on it, and the experiments with it. */
export class PlaygroundController {
  readonly transport: TransportName;
  readonly tap = new Tap();
  readonly state = signal<ConnectionState>('idle');
  readonly identity = signal<Identity | undefined>(undefined);
  /** The node of the connection, and when its token expires. */
  readonly welcome = signal<Fields>({});
  readonly turns = signal<readonly Turn[]>([]);
  readonly tools = signal<readonly ToolDescription[]>([]);
  /** Why the connection waits or has stopped. */
  readonly problem = signal<TollgateError | undefined>(undefined);
  /** What the last experiment showed. */
  readonly finding = signal<Finding | undefined>(undefined);
  /** States of the further connections of the experiment with the connection cap. */
  readonly others = signal<readonly ConnectionState[]>([]);
  readonly #client: Tollgate;
  #others: Tollgate[] = [];
  #refused: Fields[] = [];
  /** Called with the answer to a ping. */
  #onAnswer: () => void = () => {};

  constructor(transport: TransportName, turns: readonly Turn[]) {
    this.transport = transport;
    this.turns.value = turns;
    this.#client = newClient(this.tap.wrap(openTransport(transport)));
    this.tap.onMessage = (type, fields) => this.#message(type, fields);
    this.#client.on('state', (state) => {
      this.state.value = state;
      if (state === 'connected') this.problem.value = undefined;
    });
    this.#client.on('identity', (identity) => {
      this.identity.value = identity;
      void this.#loadTools();
    });
    this.#client.on('error', (error) => {
      if (this.#client.state !== 'connected') this.problem.value = error;
    });
    this.#client.on('lost', (reason) => this.#note(`events are no longer in the log (${reason})`, 'warn'));
    this.#client.on('event', (event) => {
      if (isRunEvent(event)) this.#change(event.request_id, (turn) => withEvent(turn, event, Date.now()));
    });
    this.#client.on('notice', ({ type }) => {
      this.finding.value = { title: 'Notice', text: `The backend published ${type}. See the frames.`, tone: 'accent' };
    });
  }

  connect(): void {
    this.#client.connect();
  }

  close(): void {
    this.closeOthers();
    this.#client.close();
  }

  ask(message: string, agent: string): void {
    const bytes = new TextEncoder().encode(message).length;
    const limit = this.identity.value?.limits.max_message_size ?? Number.POSITIVE_INFINITY;
    if (bytes > limit) {
      const problem = `MESSAGE_TOO_LARGE: the message has ${bytes} bytes, ${limit} are allowed. It was not sent.`;
      return this.#add({ ...newTurn(crypto.randomUUID(), message), status: 'refused', problem });
    }
    const run = this.#client.run(message, agent === '' ? {} : { agent });
    this.#add(newTurn(run.requestId, message));
    run.accepted.then(
      ({ runId }) => this.#change(run.requestId, (before) => ({ ...before, runId })),
      (error: TollgateError) => {
        const problem = `${error.code}: ${error.message}${waitText(error)}`;
        this.#change(run.requestId, (before) => ({ ...before, status: 'refused', problem }));
      },
    );
  }

  async cancel(runId: string): Promise<void> {
    await this.#attempt('The run was not cancelled', () => this.#client.cancel(runId));
  }

  async respond(request: InputRequest & { readonly run_id: string | null }, answer: InputAnswer): Promise<void> {
    await this.#attempt('The answer was refused', () => this.#client.respond(request, answer));
  }

  drop(): void {
    this.tap.drop();
    this.#note('connection dropped', 'warn');
    this.finding.value = {
      title: 'Dropped',
      text: 'The client reconnects after a random delay, and continues after the last event that it has seen.',
      tone: 'accent',
    };
  }

  async refreshToken(): Promise<void> {
    await this.#attempt('The token was not refreshed', async () => {
      this.tap.send('token_refresh', { token: await accessToken({ fresh: true }) });
    });
  }

  /** Ends the gateway of the connection, as in a crash; the route exists in development and test only. */
  async killNode(): Promise<void> {
    const node = String(this.welcome.value.server_id);
    await this.#attempt('The node was not killed', async () => {
      await request(path`/v1/admin/nodes/${node}/kill`, { method: 'POST' });
      const text = `${node} ends within five seconds. The client reconnects to another node and resumes there.`;
      this.finding.value = { title: 'Node killed', text, tone: 'accent' };
    });
  }

  /** Sends one message more than the plan allows per minute. */
  async exceedRate(): Promise<void> {
    const limit = this.identity.value?.limits.max_message_rate ?? 0;
    if (limit > MAX_BURST) {
      const text = `This plan allows ${limit} messages a minute. Use npm run load for that.`;
      this.finding.value = { title: 'Too high for a browser', text, tone: 'warn' };
      return;
    }
    this.#refused = [];
    let sent = 0;
    while (sent <= limit && this.#refused.length === 0 && this.state.value === 'connected') {
      const batch = Math.min(BURST, limit + 1 - sent);
      for (let at = 1; at < batch; at++) this.tap.send('typing', {});
      sent += batch;
      await this.#answered();
    }
    const waitMs = Number(this.#refused.at(-1)?.retry_after_ms ?? 0);
    this.finding.value = {
      title: 'Message limit',
      text:
        `The plan allows ${limit} messages per minute, counted over all connections of the user. After ${sent} in a ` +
        `row, the gateway refused ${this.#refused.length} with RATE_LIMITED. All messages are refused until ` +
        `${untilText(waitMs)}. Wait until then, or choose a plan with a higher limit; the connection stays open.`,
      tone: this.#refused.length > 0 ? 'warn' : 'bad',
    };
  }

  /** Sends a ping, and waits until it or a message before it is answered. */
  #answered(): Promise<void> {
    return new Promise((resolve) => {
      this.#onAnswer = resolve;
      this.tap.send('ping', {});
      setTimeout(resolve, ANSWER_MS);
    });
  }

  /** Opens as many further connections as the plan allows in all, so that the oldest, this one, is evicted. */
  exceedConnections(): void {
    const cap = this.identity.value?.limits.max_connections_per_user ?? MAX_EXTRA_CONNECTIONS + 1;
    if (cap > MAX_EXTRA_CONNECTIONS) {
      const text = `This plan allows ${cap} connections.`;
      this.finding.value = { title: 'Too many for a browser', text, tone: 'warn' };
      return;
    }
    this.closeOthers();
    this.#others = Array.from({ length: cap }, () => newClient(openTransport(this.transport)));
    for (const other of this.#others) {
      other.on('state', () => this.#showOthers());
      other.connect();
    }
    this.finding.value = {
      title: 'Connection cap',
      text: `Opening ${cap} further connections. The plan allows ${cap} in all, so the oldest, this one, is evicted.`,
      tone: 'accent',
    };
  }

  closeOthers(): void {
    for (const other of this.#others) other.close();
    this.#others = [];
    this.others.value = [];
  }

  #add(turn: Turn): void {
    this.turns.value = [...this.turns.value.slice(1 - MAX_TURNS), turn];
  }

  #showOthers(): void {
    this.others.value = this.#others.map(({ state }) => state);
  }

  /** Messages that the client itself handles, for the timeline. */
  #message(type: string, fields: Fields): void {
    switch (type) {
      case 'connection_established':
        this.welcome.value = fields;
        return;
      case 'resumed': {
        const text = replayedText(Number(fields.from), Number(fields.to));
        this.finding.value = { title: 'Resumed', text: `Without a gap: ${text}.`, tone: 'ok' };
        return this.#note(`resumed: ${text}`, 'ok');
      }
      case 'token_refreshed':
        this.welcome.value = { ...this.welcome.value, token_expires_at: fields.token_expires_at };
        this.finding.value = {
          title: 'Token refreshed',
          text: `On the open connection, without a reconnect. The new token expires at ${fields.token_expires_at}.`,
          tone: 'ok',
        };
        return;
      case 'pong':
        return this.#onAnswer();
      case 'error':
        if (fields.code === 'RATE_LIMITED') this.#refused.push(fields);
        // The errors of the messages behind it follow at once.
        setTimeout(() => this.#onAnswer(), FURTHER_MS);
        return;
      default:
    }
  }

  /** Adds a note to the timelines of runs that have not ended. */
  #note(text: string, tone: 'ok' | 'warn'): void {
    this.turns.value = this.turns.value.map((turn) =>
      isOpen(turn) ? withEntry(turn, { kind: 'note', at: Date.now(), text, tone }) : turn,
    );
  }

  #change(requestId: string | null, change: (turn: Turn) => Turn): void {
    this.turns.value = this.turns.value.map((turn) => (turn.requestId === requestId ? change(turn) : turn));
  }

  async #attempt(title: string, action: () => Promise<unknown>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.finding.value = { title, text: error instanceof Error ? error.message : String(error), tone: 'bad' };
    }
  }

  /** Prices for the tool cards. Over SSE there is no such request, and the cards show no prices. */
  async #loadTools(): Promise<void> {
    if (this.transport === 'sse') return;
    this.tools.value = await this.#client.tools().catch(() => []);
  }
}

/** What to do about a refusal that ends by itself. */
function waitText({ retryAfterMs }: TollgateError): string {
  return retryAfterMs === undefined || retryAfterMs === 0 ? '' : ` Send it again after ${untilText(retryAfterMs)}.`;
}

/** When a wait ends, as a time of day and in seconds. */
function untilText(waitMs: number): string {
  return `${clockTime(Date.now() + waitMs)}, in ${Math.ceil(waitMs / 1_000)} s`;
}

function replayedText(from: number, to: number): string {
  if (from > to) return 'no event was missed';
  return from === to ? `event ${from} was replayed` : `events ${from} to ${to} were replayed`;
}

function newClient(transport: OpenTransport): Tollgate {
  return new Tollgate({
    url: location.origin,
    getToken: ({ previous }) => accessToken({ fresh: previous !== undefined }),
    transport,
  });
}

function openTransport(name: TransportName): OpenTransport {
  if (name === 'sse') return sseTransport();
  if (name === 'websocket') return webSocketTransport(WebSocket);
  return socketIo();
}

let socketIoModule: typeof import('./socketio.ts') | undefined;

/** Fetches the code of Socket.IO, which only this transport needs. */
export async function prepareTransport(name: TransportName): Promise<void> {
  if (name === 'socketio') socketIoModule ??= await import('./socketio.ts');
}

function socketIo(): OpenTransport {
  if (!socketIoModule) throw new Error('Call prepareTransport first.');
  return socketIoModule.socketIo();
}
