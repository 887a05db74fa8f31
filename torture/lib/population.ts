import { setTimeout as delay } from 'node:timers/promises';
import { DefaultChatTransport, type UIMessage, type UIMessageChunk } from 'ai';
import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import {
  type OpenTransport,
  type Run,
  RunFailedError,
  sseTransport,
  Tollgate,
  TollgateError,
  webSocketTransport,
} from '../../packages/client/src/main.ts';
import { socketIoTransport } from '../../packages/client/src/socketio.ts';
import { Random } from '../../test/support/chaos/random.ts';
import { CAP } from './deployment.ts';
import type { Ended, OperationName, Recorder } from './history.ts';
import { recordedTransport } from './recorded-transport.ts';
import type { User } from './users.ts';

const REQUEST_MS = 20_000;
/** A run whose worker dies is taken over within 15 s; the next one may die too. */
const RUN_MS = 60_000;
const MAX_PAUSE_MS = 150;
const TOOL = 'add';
const MESSAGES = ['Which agents are there?', 'Hello', 'What can you do for me?'];
/** Codes of the client package after which the outcome is unknown. */
const UNKNOWN_CODES = ['CLOSED', 'DISCONNECTED', 'CANNOT_CONNECT', 'SIGNED_OUT', 'REQUEST_TIMEOUT', 'EVENTS_LOST'];

export const TRANSPORTS: Readonly<Record<string, () => OpenTransport>> = {
  websocket: () => webSocketTransport(WebSocket),
  socketio: () => socketIoTransport(io, { transports: ['websocket'] }),
  sse: () => sseTransport(),
};

export interface MemberDeps {
  readonly recorder: Recorder;
  readonly urls: readonly string[];
  readonly seed: number;
  /** Aborted when no further operation may begin. */
  readonly signal: AbortSignal;
}

type Outcome = Omit<Ended, 'id' | 'at'>;

/** One client of a user, which does one operation after the other. */
abstract class Member {
  readonly user: User;
  readonly name: string;
  protected readonly deps: MemberDeps;
  protected readonly random: Random;
  #operations = 0;

  constructor(deps: MemberDeps, user: User, name: string) {
    this.deps = deps;
    this.user = user;
    this.name = name;
    this.random = new Random(deps.seed);
  }

  /** Resolves when the last operation has ended after the signal. */
  async work(): Promise<void> {
    while (!this.deps.signal.aborted) {
      await this.next();
      await delay(this.random.below(MAX_PAUSE_MS));
    }
  }

  abstract close(): void;
  protected abstract next(): Promise<unknown>;

  protected get url(): string {
    const { urls } = this.deps;
    return urls[this.random.below(urls.length)] ?? '';
  }

  protected newKey(kind: string): string {
    this.#operations += 1;
    return `${this.name}-${kind}-${this.#operations}`;
  }

  /** Records an operation from its begin to its end, whatever happens. */
  async operation(op: OperationName, key: string, act: (id: number) => Promise<Outcome>): Promise<void> {
    const { recorder } = this.deps;
    const id = recorder.invoke({ op, key, user: this.user.id, client: this.name });
    const outcome = await act(id).catch(outcomeOf);
    recorder.add({ ...outcome, id });
  }
}

/** A refusal that a repetition would not change is a failure; after anything else the outcome is unknown. */
function outcomeOf(error: unknown): Outcome {
  if (!(error instanceof TollgateError)) return { t: 'unknown', code: String(error).slice(0, 200) };
  const isKnown = !error.retryable && !UNKNOWN_CODES.includes(error.code);
  return { t: isKnown ? 'failed' : 'unknown', code: error.code };
}

/** A client of the package `@tollgate/client` over one transport. */
export class ClientMember extends Member {
  readonly #transport: OpenTransport;
  #client: Tollgate;
  #siblings: readonly ClientMember[] = [];

  constructor(deps: MemberDeps, user: User, transport: string) {
    super(deps, user, `${user.id}-${transport}`);
    const inner = TRANSPORTS[transport];
    if (!inner) throw new Error(`there is no transport ${transport}`);
    const { recorder } = deps;
    this.#transport = recordedTransport(inner(), { recorder, user: user.id, client: this.name });
    this.#client = this.#open();
  }

  /** Other clients of the same user, which repeat its requests. */
  meet(members: readonly ClientMember[]): void {
    this.#siblings = members.filter((member) => member !== this && member.user.id === this.user.id);
  }

  close(): void {
    this.#client.close();
  }

  async offersTool(): Promise<boolean> {
    const tools = await this.#client.tools();
    return tools.some(({ name, available }) => name === TOOL && available);
  }

  protected next(): Promise<unknown> {
    // A client that was evicted or lost its session does not come back by itself.
    if (this.#client.state === 'stopped') this.#client = this.#open();
    const dice = this.random.next();
    if (dice < 0.35) return this.#run();
    if (dice < 0.9) return this.#callTool();
    return this.operation('usage', this.newKey('usage'), async () => {
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

  call(key: string): Promise<void> {
    return this.operation('tool', key, async () => {
      const result = await this.#client.callTool(TOOL, { key }, { idempotencyKey: key });
      return { t: 'ok', callId: result.tool_call_id, success: result.success };
    });
  }

  async #run(): Promise<void> {
    const requestId = this.newKey('run');
    const message = MESSAGES[this.random.below(MESSAGES.length)] ?? '';
    const agent = this.random.chance(0.2) ? 'remote' : undefined;
    const isCancelled = this.random.chance(0.15);
    const thread = `thread_${this.user.id.replaceAll(/\W/g, '')}`;
    await this.operation('run', requestId, async (id) => {
      const run = this.#client.run(message, { requestId, agent, thread });
      const { runId } = await run.accepted;
      this.deps.recorder.add({ t: 'accepted', id, runId });
      const cancelling = isCancelled ? this.#cancel(run, runId) : undefined;
      const end = await endOf(run);
      await cancelling;
      return end === undefined ? { t: 'unknown', code: 'NO_END', runId } : { t: 'ok', runId, end };
    });
  }

  #cancel(run: Run, runId: string): Promise<void> {
    return this.operation('cancel', runId, async () => {
      await run.cancel();
      return { t: 'ok' };
    });
  }

  #open(): Tollgate {
    return new Tollgate({
      url: this.url,
      getToken: this.user.token,
      transport: this.#transport,
      requestTimeoutMs: REQUEST_MS,
      maxRetryAfterMs: 3_000,
      backoff: { maxMs: 1_000 },
    });
  }
}

/** Resolves with the type of the terminal event; undefined if none arrives in time. */
async function endOf(run: Run): Promise<string | undefined> {
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

/** A chat of the AI SDK, which continues a stream that has broken. */
export class ChatMember extends Member {
  constructor(deps: MemberDeps, user: User) {
    super(deps, user, `${user.id}-chat`);
  }

  close(): void {}

  protected next(): Promise<unknown> {
    const key = this.newKey('chat');
    return this.operation('chat', key, () => this.#chat(key));
  }

  async #chat(chatId: string): Promise<Outcome> {
    const headers = { authorization: `Bearer ${await this.user.token()}` };
    const transport = new DefaultChatTransport<UIMessage>({ api: `${this.url}/v1/chat`, headers });
    const parts = [{ type: 'text' as const, text: MESSAGES[this.random.below(MESSAGES.length)] ?? '' }];
    const messages: UIMessage[] = [{ id: `${chatId}-1`, role: 'user', parts }];
    const send = { trigger: 'submit-message' as const, chatId, messageId: undefined, messages };
    const deadline = performance.now() + RUN_MS;
    let runId: string | undefined;
    while (performance.now() < deadline) {
      const abortSignal = AbortSignal.timeout(REQUEST_MS);
      // The gateway starts one run per message, so a repetition is safe.
      const isNew = runId === undefined;
      const stream: Promise<ReadableStream<UIMessageChunk> | null> = isNew
        ? transport.sendMessages({ ...send, abortSignal })
        : transport.reconnectToStream({ chatId });
      const seen = await stream.then(readChat).catch(() => ({ runId: undefined, finished: false }));
      runId = seen.runId ?? runId;
      if (seen.finished) return { t: 'ok', runId };
      await delay(200);
    }
    return { t: 'unknown', code: 'NO_END', runId };
  }
}

async function readChat(
  stream: ReadableStream<UIMessageChunk> | null,
): Promise<{ runId: string | undefined; finished: boolean }> {
  let runId: string | undefined;
  let finished = false;
  try {
    // A stream of a run that has ended long ago is null.
    for await (const chunk of stream ?? []) {
      if (chunk.type === 'start' && 'messageId' in chunk) runId = String(chunk.messageId);
      if (chunk.type === 'finish' || chunk.type === 'abort') finished = true;
    }
  } catch {
    // The stream broke; what was read counts.
  }
  return { runId, finished: finished || stream === null };
}

/** Opens more connections than its plan allows, and replaces each that is closed. */
export class GreedyMember {
  readonly user: User;
  readonly #deps: MemberDeps;
  readonly #random: Random;

  constructor(deps: MemberDeps, user: User) {
    this.user = user;
    this.#deps = deps;
    this.#random = new Random(deps.seed);
  }

  /** Resolves when all connections are closed after the signal. */
  async work(): Promise<void> {
    await Promise.all(Array.from({ length: CAP + 3 }, () => this.#reconnect()));
  }

  async #reconnect(): Promise<void> {
    const { signal, urls } = this.#deps;
    while (!signal.aborted) {
      const url = new URL('/ws/secure', urls[this.#random.below(urls.length)]?.replace(/^http/, 'ws'));
      const headers = { authorization: `Bearer ${await this.user.token()}` };
      const socket = new WebSocket(url, { headers, handshakeTimeout: REQUEST_MS });
      const close = () => socket.terminate();
      signal.addEventListener('abort', close, { once: true });
      await new Promise<void>((resolve) => {
        socket.on('error', () => {});
        socket.on('close', () => resolve());
      });
      signal.removeEventListener('abort', close);
      await delay(200 + this.#random.below(800));
    }
  }
}
