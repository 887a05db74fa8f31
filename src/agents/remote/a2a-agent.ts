import type { A2aSettings } from '../../catalogue/remote-agents.ts';
import type { Clock } from '../../lib/clock.ts';
import { foreignRequest } from '../../protocol/forms.ts';
import type { InputOutcome, InputRequest } from '../../protocol/input.ts';
import type { Fields } from '../../protocol/messages.ts';
import { asObject } from '../model/json.ts';
import { A2aRpc } from './a2a-rpc.ts';
import { A2aTask, type Interruption, taskCursorOf, textOf } from './a2a-task.ts';
import { RemoteFault } from './fault.ts';
import { Reconnects } from './reconnects.ts';
import { MAX_ROUNDS } from './rounds.ts';
import { beginTurn, type Turn, type TurnAnswer, type TurnRunner } from './turn.ts';

const CANCEL_MS = 5_000;
/** Error code of A2A 1.0, as text. */
const UNSUPPORTED_OPERATION = '-32004';

/**
 * `kind: a2a`: an agent with A2A 1.0 over JSON-RPC. After a lost connection, and under the worker that takes over, the
 * task is read first: a stream of a task begins with its present state and repeats nothing.
 */
export function a2aRunner(clock: Clock): TurnRunner<A2aSettings> {
  return async (turn) => {
    const { remote } = turn.context;
    const cursor = beginTurn(turn, true) === 'resumed' ? taskCursorOf(remote.cursor) : undefined;
    const conversation = new A2aConversation(turn, new A2aTask(remote, cursor), clock);
    try {
      return await conversation.read(cursor !== undefined);
    } catch (thrown) {
      if (thrown instanceof RemoteFault || turn.context.signal.aborted) conversation.cancel();
      throw thrown;
    }
  };
}

class A2aConversation {
  readonly #turn: Turn<A2aSettings>;
  readonly #task: A2aTask;
  readonly #rpc: A2aRpc;
  readonly #reconnects: Reconnects;
  /** A message that answers without a task. */
  #message: Fields | undefined;
  /** The message with the user's answer, until it is sent. */
  #reply: Reply | undefined;
  /** Whether the answer to the latest ask has arrived. */
  #isAnswered = false;

  constructor(turn: Turn<A2aSettings>, task: A2aTask, clock: Clock) {
    this.#turn = turn;
    this.#task = task;
    this.#rpc = new A2aRpc(turn);
    this.#reconnects = new Reconnects(clock, turn.context.signal);
  }

  async read(isTakenOver: boolean): Promise<TurnAnswer> {
    let reads = isTakenOver;
    let streams = true;
    for (;;) {
      try {
        if (reads) await this.#readTask();
        const answer = await this.#answer();
        if (answer) return answer;
        if (this.#task.interruption) await this.#ask(this.#task.interruption);
        streams = await this.#rpc.streams();
        if (streams || !reads || this.#reply) await this.#follow(reads);
        const after = await this.#answer();
        if (after && !reads) return after;
        // After an interruption the log can lack what was sent meanwhile; the task has all of it.
        if (after || this.#task.interruption) continue;
        if (this.#task.id === undefined) throw new RemoteFault('interrupted', 'the stream ended without a task');
        await this.#reconnects.pause();
      } catch (thrown) {
        if (this.#task.id === undefined) throw thrown;
        await this.#reconnects.after(thrown);
      }
      reads = true;
    }
  }

  /** Cancels the task without waiting: the run has ended. */
  cancel(): void {
    const { id, isTerminal } = this.#task;
    if (id === undefined || isTerminal) return;
    this.#rpc.call('CancelTask', { id }, AbortSignal.timeout(CANCEL_MS)).catch(() => undefined);
  }

  /**
   * Asks the user what the task waits for. The number of the ask is stored before it, so that the same interruption
   * gets the same ask under a worker that takes over.
   * @throws RunSuspended, RemoteFault without an answer
   */
  async #ask({ reason, mark, text }: Interruption): Promise<void> {
    const { remote, requestInput } = this.#turn.context;
    const before = this.#task.ask;
    const isSame = before?.mark === mark && !this.#isAnswered;
    const number = isSame ? before.number : (before?.number ?? 0) + 1;
    if (number > MAX_ROUNDS) throw new RemoteFault('too_large', `more than ${MAX_ROUNDS} questions`);
    await remote.flush();
    if (!isSame) await this.#task.begin({ number, mark });
    this.#isAnswered = false;
    const { action, content } = await requestInput(requestOf(reason, text), `a${number}`);
    const isRefused =
      action === 'cancel' || action === 'expired' || (action === 'decline' && reason === 'auth_required');
    if (isRefused) throw new RemoteFault(reason, `the user did not answer: ${action}`, { tokens: this.#task.tokens });
    this.#reply = { id: `${this.#turn.task.runId}_a${number}`, action, text: replyOf(reason, action, content) };
  }

  async #readTask(): Promise<void> {
    const task = await this.#rpc.call('GetTask', { id: this.#task.id }, this.#turn.context.signal);
    // Some servers answer with the member of a stream.
    await this.#task.snapshot(asObject(task.task) ?? task);
    this.#reconnects.progress();
  }

  /** Follows the task to the end of the stream. */
  async #follow(exists: boolean): Promise<void> {
    const reply = this.#reply;
    this.#reply = undefined;
    if (reply) this.#task.answered();
    try {
      const subscribed = () => this.#rpc.stream('SubscribeToTask', { id: this.#task.id });
      for await (const result of exists && !reply ? subscribed() : await this.#send(reply)) {
        await this.#result(result);
        if (this.#message || this.#task.isTerminal) return;
      }
      this.#isAnswered ||= reply !== undefined;
    } catch (thrown) {
      // The task has ended since it was read, or the agent has no subscriptions: the next read tells.
      const isRefused = thrown instanceof RemoteFault && thrown.details.agentCode === UNSUPPORTED_OPERATION;
      if (!exists || reply || !isRefused) throw thrown;
    }
  }

  async #send(reply: Reply | undefined): Promise<AsyncIterable<Fields>> {
    const params = paramsOf(this.#turn, this.#task, reply);
    if (await this.#rpc.streams()) return this.#rpc.stream('SendStreamingMessage', params);
    const configuration = { ...params.configuration, returnImmediately: true };
    const result = await this.#rpc.call('SendMessage', { ...params, configuration }, this.#turn.context.signal);
    return (async function* () {
      yield result;
    })();
  }

  async #result(result: Fields): Promise<void> {
    const { task, message, statusUpdate, artifactUpdate } = result;
    if (asObject(task)) return this.#task.snapshot(asObject(task) ?? {});
    if (asObject(artifactUpdate)) return this.#task.artifactUpdate(asObject(artifactUpdate) ?? {});
    if (asObject(statusUpdate)) return this.#task.statusUpdate(asObject(statusUpdate) ?? {});
    if (!asObject(message)) return this.#turn.ignored(Object.keys(result)[0] ?? 'empty');
    this.#message = asObject(message);
    await this.#turn.context.remote.text(textOf(this.#message?.parts));
  }

  async #answer(): Promise<TurnAnswer | undefined> {
    if (this.#message) return { text: textOf(this.#message.parts), tokens: undefined };
    if (!this.#task.isTerminal) return undefined;
    return { text: this.#task.text, tokens: this.#task.tokens };
  }
}

/** A message of the user within a task. */
interface Reply {
  readonly id: string;
  readonly action: string;
  readonly text: string;
}

function requestOf(reason: Interruption['reason'], text: string): InputRequest {
  if (reason === 'input_required') return foreignRequest(text, undefined).request;
  const message = `The agent needs an authorization: ${text || 'it does not say which'}. Accept once you have given it.`;
  return { kind: 'approval', message: message.slice(0, 2_000).toWellFormed() };
}

function replyOf(reason: Interruption['reason'], action: string, content: InputOutcome['content']): string {
  if (reason === 'auth_required') return 'The authorization has been given.';
  return action === 'accept' ? String(content?.answer ?? '') : 'The user declines to answer.';
}

function paramsOf(
  { task, settings, history, toolAccess }: Turn<A2aSettings>,
  { id: taskId, contextId }: A2aTask,
  reply: Reply | undefined,
) {
  const earlier = history.map(({ role, content }) => ({ role, text: content }));
  return {
    message: {
      messageId: reply?.id ?? task.runId,
      // The thread of the run is the conversation of the agent.
      contextId: (reply && contextId) ?? task.threadId,
      ...(reply ? { taskId } : {}),
      role: 'ROLE_USER',
      parts: [{ text: reply?.text ?? task.message }],
    },
    configuration: { acceptedOutputModes: ['text/plain', 'application/json'] },
    metadata: {
      ...settings.metadata,
      tollgate: {
        history: earlier,
        ...(reply ? { action: reply.action } : {}),
        ...(toolAccess ? { mcp_url: toolAccess.url, token: toolAccess.token } : {}),
      },
    },
  };
}
