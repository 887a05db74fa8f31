import { setTimeout as delay } from 'node:timers/promises';
import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import {
  type OpenTransport,
  type Run,
  RunFailedError,
  sseTransport,
  Tollgate,
  webSocketTransport,
} from '../../packages/client/src/main.ts';
import { socketIoTransport } from '../../packages/client/src/socketio.ts';
import { MESSAGES, Member, type MemberDeps, REQUEST_MS, RUN_MS } from './member.ts';
import { recordedTransport } from './recorded-transport.ts';
import type { User } from './users.ts';

const TOOL = 'add';
const OFFERED = [TOOL, 'guarded'];
/** The built-in agent is the default one. */
const OTHER_AGENTS = ['remote', 'modelled', 'agui'];

export const TRANSPORTS: Readonly<Record<string, () => OpenTransport>> = {
  websocket: () => webSocketTransport(WebSocket),
  socketio: () => socketIoTransport(io, { transports: ['websocket'] }),
  sse: () => sseTransport(),
};

/** A client of the package `@tollgate/client` over one transport. */
export class ClientMember extends Member {
  readonly #transport: OpenTransport;
  #client: Tollgate;
  #siblings: readonly ClientMember[] = [];

  /** @param inner the transport; by default the one with this name */
  constructor(deps: MemberDeps, user: User, transport: string, inner = TRANSPORTS[transport]?.()) {
    super(deps, user, `${user.id}-${transport}`);
    if (!inner) throw new Error(`there is no transport ${transport}`);
    const { recorder } = deps;
    this.#transport = recordedTransport(inner, { recorder, user: user.id, client: this.name });
    this.#client = this.#open();
  }

  /** Other clients of the same user, which repeat its requests. */
  meet(members: readonly ClientMember[]): void {
    this.#siblings = members.filter((member) => member !== this && member.user.id === this.user.id);
  }

  override close(): void {
    this.#client.close();
  }

  async offersTools(): Promise<boolean> {
    const tools = await this.#client.tools();
    return OFFERED.every((wanted) => tools.some(({ name, available }) => name === wanted && available));
  }

  protected next(): Promise<unknown> {
    // A client that was evicted or lost its session does not come back by itself.
    if (this.#client.state === 'stopped') this.#client = this.#open();
    const dice = this.random.next();
    if (dice < 0.35) return this.#run();
    if (dice < 0.9) return this.#callTool();
    return this.operation('usage', { key: this.newKey('usage') }, async () => {
      await this.#client.usage();
      return { t: 'ok' };
    });
  }

  /** Calls the tool with a key, once more at the same time by another client, or once more later. */
  async #callTool(): Promise<void> {
    const key = this.newKey('tool');
    const sibling = this.#siblings[this.random.below(this.#siblings.length)];
    const dice = this.random.next();
    if (sibling && dice < 0.15) await Promise.all([this.call(key), sibling.call(key)]);
    else await this.call(key);
    if (dice > 0.85) await (sibling ?? this).call(key);
  }

  async call(key: string): Promise<void> {
    await this.operation('tool', { key }, async () => {
      const result = await this.#client.callTool(TOOL, { key }, { idempotencyKey: key });
      return { t: 'ok', callId: result.tool_call_id, success: result.success };
    });
  }

  async #run(): Promise<void> {
    const requestId = this.newKey('run');
    const message = MESSAGES[this.random.below(MESSAGES.length)] ?? '';
    const agent = this.random.chance(0.4) ? OTHER_AGENTS[this.random.below(OTHER_AGENTS.length)] : undefined;
    const isCancelled = this.random.chance(0.15);
    const thread = `thread_${this.user.id.replaceAll(/\W/g, '')}`;
    await this.operation('run', { key: requestId }, async (id) => {
      const run = this.#client.run(message, { requestId, agent, thread });
      const { runId } = await run.accepted;
      this.deps.recorder.add({ t: 'accepted', id, runId });
      const cancelling = isCancelled ? this.#cancel(run, runId) : undefined;
      const end = await endOf(run);
      await cancelling;
      return end === undefined ? { t: 'unknown', code: 'NO_END', runId } : { t: 'ok', runId, end };
    });
  }

  async #cancel(run: Run, runId: string): Promise<void> {
    await this.operation('cancel', { key: runId }, async () => {
      await run.cancel();
      return { t: 'ok' };
    });
  }

  #open(): Tollgate {
    return openClient(this.url, this.user, this.#transport);
  }
}

export function openClient(url: string, { token }: User, transport: OpenTransport): Tollgate {
  const backoff = { maxMs: 1_000 };
  return new Tollgate({
    ...{ url, transport, getToken: token, backoff },
    requestTimeoutMs: REQUEST_MS,
    maxRetryAfterMs: 3_000,
  });
}

/** Resolves with the type of the terminal event; undefined if none arrives in time. */
export async function endOf(run: Run): Promise<string | undefined> {
  const timeout = new AbortController();
  const late = delay(RUN_MS, undefined, { signal: timeout.signal }).catch(() => undefined);
  const ended = run.result().then(
    () => 'agent_completed',
    (error: unknown) => {
      if (!(error instanceof RunFailedError)) throw error;
      return error.code === 'RUN_CANCELLED' ? 'agent_cancelled' : 'agent_failed';
    },
  );
  try {
    return await Promise.race([ended, late]);
  } finally {
    timeout.abort();
  }
}
