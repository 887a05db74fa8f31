import type {
  ConnectionContext,
  MessageContext,
  RpcDispatcher,
  RpcMessage,
  RpcRequest,
} from '../../connections/connection-context.ts';
import type { RunInputsPort } from '../../connections/handlers.ts';
import { isObject } from '../../lib/json.ts';
import { NO_MESSAGE_LIMIT } from '../../limits/message-limit.ts';
import { publicError, TollgateError } from '../../protocol/errors.ts';
import type { Fields, LogEntry } from '../../protocol/messages.ts';
import { parseFields } from '../../protocol/parse-fields.ts';
import type { FrontEndDeps } from '../front-end-scope.ts';
import { eventOf } from '../run-events.ts';
import { answerRun, answersOf } from './answers.ts';
import { ChatBody, chatRun, RESUMABLE_MS, threadOf } from './chat-request.ts';
import { ChatResponse } from './chat-response.ts';
import type { Chunk } from './chunks.ts';
import { type FollowedRun, followedRun } from './followed-run.ts';

/** Streams of one socket: as many as a page has chats. */
const MAX_STREAMS = 16;
const RETRY_MS = 1_000;

/** A stream that the client follows. */
interface ChatStream {
  readonly runId: string;
  readonly epoch: string;
  /** The last event that was sent: a resume of another stream repeats it. */
  lastSeq: number;
  readonly response: ChatResponse;
}

export interface ChatSocketDeps {
  readonly runs: Pick<FrontEndDeps['runs'], 'start' | 'locate'>;
  readonly inputs: RunInputsPort;
  readonly limits: FrontEndDeps['limits'];
  readonly sendFrame: (frame: string) => void;
}

/**
 * The requests of the AI SDK's `WebSocketChatTransport` on one connection. The streams share the cursor of the
 * connection: a stream that begins moves it back to the beginning of its run, and the others skip what they have.
 */
export class ChatSocket implements RpcDispatcher {
  readonly #deps: ChatSocketDeps;
  readonly #streams = new Map<string, ChatStream>();

  constructor(deps: ChatSocketDeps) {
    this.#deps = deps;
  }

  handles(method: string): boolean {
    return method === 'send' || method === 'resume' || method === 'abort';
  }

  /** `abort` ends a stream, like a closed response. It does not cancel the run. */
  observe({ method, params }: RpcMessage): void {
    if (method === 'abort') this.#streams.delete(String(params.requestId));
  }

  async answer(ctx: MessageContext, { id, method, params }: RpcRequest): Promise<string | undefined> {
    if (this.#streams.size >= MAX_STREAMS) {
      const text = `Rate limit exceeded: ${MAX_STREAMS} streams of this connection are open.`;
      throw new TollgateError('RATE_LIMITED', { text, retryAfterMs: RETRY_MS });
    }
    const run = method === 'send' ? await this.#start(ctx, params) : await this.#find(ctx, params);
    if (!run) return JSON.stringify({ type: 'no-active', requestId: id });
    await this.#follow(ctx.connection, String(id), run);
    return undefined;
  }

  deliver(entry: LogEntry): void {
    for (const [requestId, stream] of this.#streams) this.#send(requestId, stream, entry);
  }

  /** The log has lost events: the client has to start its streams again. */
  onReplayGap(gap: Fields): void {
    const error = publicError(new TollgateError('EVENTS_TRIMMED', { retryable: true, fields: gap }));
    for (const requestId of this.#streams.keys()) {
      this.#frame({ type: 'error', requestId, errorText: JSON.stringify({ error }) });
    }
    this.#streams.clear();
  }

  async #start({ connection, identity, limit }: MessageContext, params: Fields): Promise<FollowedRun> {
    const { runs, inputs, limits } = this.#deps;
    const body = isObject(params.body) ? params.body : {};
    const chat = parseFields(ChatBody, { ...body, ...params });
    const answers = answersOf(chat);
    if (answers) {
      await limit.allowed;
      const answered = await answerRun({ inputs, locate: (id, run) => runs.locate(id, run) }, identity.userId, answers);
      return { ...answered, afterSeq: answers.seq };
    }
    const run = chatRun(identity.userId, chat);
    const size = Buffer.byteLength(run.message);
    if (size > limits.maxMessageBytes) {
      throw new TollgateError('MESSAGE_TOO_LARGE', { fields: { max_message_size: limits.maxMessageBytes, size } });
    }
    const { connectionId, degraded } = connection;
    const { run_id } = await runs.start({ ...run, identity, connectionId, degraded, transport: 'ai_sdk' }, limit);
    const located = await runs.locate(identity.userId, { runId: run_id });
    if (!located) throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id } });
    return followedRun(located);
  }

  async #find({ identity, limit }: MessageContext, { id }: Fields): Promise<FollowedRun | undefined> {
    if (typeof id !== 'string' || id === '') {
      throw new TollgateError('FORMAT_ERROR', { text: '"id" must be a string.', fields: { field: 'id' } });
    }
    const { userId } = identity;
    const [run] = await Promise.all([
      this.#deps.runs.locate(userId, { threadId: threadOf(userId, id) }),
      limit.allowed,
    ]);
    return run && (run.endedMsAgo ?? 0) < RESUMABLE_MS ? followedRun(run) : undefined;
  }

  async #follow(connection: ConnectionContext, requestId: string, run: FollowedRun): Promise<void> {
    const { runId, epoch, after, oldest, afterSeq } = run;
    if (after + 1 < oldest) throw new TollgateError('EVENTS_TRIMMED', { fields: { run_id: runId } });
    this.#frame({ type: 'start', requestId });
    const response = new ChatResponse(runId, afterSeq);
    const stream = { runId, epoch, lastSeq: after, response };
    this.#streams.set(requestId, stream);
    const isOpen = () => this.#streams.get(requestId) === stream;
    const reply = await connection.resume(after, epoch, NO_MESSAGE_LIMIT).catch((error: unknown) => {
      // The error ends the stream for the client.
      if (isOpen()) this.#streams.delete(requestId);
      throw error;
    });
    if (reply?.type === 'resumed' && isOpen()) {
      this.#sendChunks(requestId, stream, response.sent, response.caughtUp());
    }
    if (reply?.type !== 'resume_failed' || !this.#streams.delete(requestId)) return;
    throw new TollgateError('EVENTS_TRIMMED', { fields: { run_id: runId } });
  }

  #send(requestId: string, stream: ChatStream, entry: LogEntry): void {
    if (entry.epoch !== stream.epoch || entry.seq <= stream.lastSeq) return;
    stream.lastSeq = entry.seq;
    const event = eventOf(stream.runId, entry);
    if (!event) return;
    const { response } = stream;
    this.#sendChunks(requestId, stream, response.sent, response.add(event));
  }

  #sendChunks(requestId: string, { response }: ChatStream, first: number, chunks: readonly Chunk[]): void {
    for (const [at, chunk] of chunks.entries()) {
      this.#frame({ type: 'chunk', requestId, sequence: first + at, chunk });
    }
    if (!response.hasEnded) return;
    this.#streams.delete(requestId);
    this.#frame({ type: 'end', requestId });
  }

  #frame(frame: Fields): void {
    this.#deps.sendFrame(JSON.stringify(frame));
  }
}
