import type { FastifyReply, FastifyRequest } from 'fastify';
import type { AgentCatalogue } from '../../catalogue/agent-catalogue.ts';
import type { RunInputsPort, ThreadsPort } from '../../connections/handlers.ts';
import type { LocatedRun } from '../../jobs.ts';
import { clientToolsOf } from '../../protocol/client-tools.ts';
import { TollgateError } from '../../protocol/errors.ts';
import { runIdOfCall } from '../../protocol/input.ts';
import type { FrontEndDeps, FrontEndScope } from '../front-end-scope.ts';
import { AgUiRun, questionId } from './ag-ui-run.ts';
import { framingFor } from './encoding.ts';
import type { AgUiEvent, HistoryMessage, ToolMessage } from './events.ts';
import {
  clientRunId,
  fieldError,
  ignoredFields,
  namesOf,
  newMessage,
  type ResumeEntry,
  type RunAgentInput,
  type SentResult,
  sentResults,
} from './input.ts';
import { answerCalls, answerInterrupts, unknownCall, unknownInterrupt } from './resume.ts';
import { agUiEncoder } from './stream-encoder.ts';

/** Messages of a thread that a client without messages receives. */
const HISTORY_LENGTH = 100;
/** Name that clients use for the default agent. */
const DEFAULT_AGENT = 'default';

export interface ConversationsDeps {
  readonly scope: FrontEndScope;
  readonly runs: Pick<FrontEndDeps['runs'], 'locate' | 'cancel' | 'status'>;
  readonly inputs: RunInputsPort;
  readonly threads: Pick<ThreadsPort, 'history'>;
  readonly agents: Pick<AgentCatalogue, 'get' | 'all'>;
}

/** Runs and threads for clients that speak AG-UI. */
export class Conversations {
  readonly #deps: ConversationsDeps;

  constructor(deps: ConversationsDeps) {
    this.#deps = deps;
  }

  /**
   * Starts the run of the input, or continues it if it was started before, and streams its events. With `resume`, or
   * with results of the client's tools, it answers a run of the thread that waits for them, and continues that run.
   * @throws TollgateError FORMAT_ERROR, AGENT_NOT_FOUND, EVENTS_TRIMMED, and the errors of `FrontEndScope.start`
   */
  async run(
    request: FastifyRequest,
    reply: FastifyReply,
    agentId: string,
    input: RunAgentInput,
  ): Promise<FastifyReply> {
    const { scope } = this.#deps;
    const { userId } = scope.caller(request).identity;
    const { threadId, requestId, runId } = namesOf(userId, input);
    const agent = this.#agentName(agentId);
    const answers = { entries: input.resume ?? [], results: sentResults(input) };
    if (answers.entries.length + answers.results.length > 0) return this.#continue(request, reply, input, answers);
    const message = newMessage(input);
    let isNew = false;
    if (message !== undefined) {
      const clientTools = clientToolsOf(input.tools);
      const run = { requestId, runId, threadId, agent, message, transport: 'ag_ui', clientTools };
      isNew = !(await scope.start(request, run)).isRepeated;
    }
    const located = await scope.locate(userId, { runId });
    if (!located && message === undefined) {
      throw fieldError('messages', 'the last message must be one of the user');
    }
    if (!located) throw new TollgateError('RUN_NOT_FOUND', { fields: { run_id: runId } });
    return this.#stream(request, reply, { input, located, catchesUp: !isNew, clientRunId: input.runId });
  }

  /**
   * Stores the answers to a run that waits, and streams the run from where it is, as the run that the client has begun.
   * Of the client's messages, only the results of calls that this run waits for count.
   * @throws TollgateError FORMAT_ERROR, RATE_LIMITED, INPUT_EXPIRED, INPUT_ALREADY_ANSWERED, EVENTS_TRIMMED
   */
  async #continue(
    request: FastifyRequest,
    reply: FastifyReply,
    input: RunAgentInput,
    { entries, results }: { readonly entries: readonly ResumeEntry[]; readonly results: readonly SentResult[] },
  ): Promise<FastifyReply> {
    const { scope, runs, inputs } = this.#deps;
    const { identity } = scope.caller(request);
    const { userId } = identity;
    const { threadId } = namesOf(userId, input);
    await scope.countMessage(identity).allowed;
    const unknown = () => (entries.length > 0 ? unknownInterrupt(0) : unknownCall(results[0]?.at ?? 0));
    const id = entries[0]?.interruptId ?? results.at(-1)?.message.toolCallId ?? '';
    const located = await this.#runOf(userId, threadId, id);
    if (!located) throw unknown();
    const { runId } = located;
    const at = input.messages.length - 1;
    const answersRun = input.messages.some(({ id }) => id.startsWith(`${runId}-`));
    if (answersRun && input.messages[at]?.role === 'user') {
      throw fieldError(`messages.${at}`, 'a new message cannot be sent together with "resume": send it afterwards');
    }
    const store = async () => {
      const { input_requests: open = [] } = entries.length > 0 ? await runs.status(userId, runId) : {};
      await answerInterrupts(inputs, { userId, runId, open }, entries);
      return answerCalls(inputs, { userId, runId }, results);
    };
    const isOver = async () => (await scope.find(userId, { runId }))?.endedAtSeq !== undefined;
    // A client whose run has ended meanwhile cannot send anything but this: it receives the end, with the results that
    // count.
    const unused = results.map(({ message }) => message.toolCallId);
    if (located.endedAtSeq !== undefined && entries.length === 0 && runIdOfCall(id) !== runId) throw unknown();
    const refused =
      located.endedAtSeq !== undefined
        ? unused
        : await store().catch(async (thrown: unknown) => {
            if (await isOver()) return unused;
            throw thrown;
          });
    return this.#stream(request, reply, { input, located, refused, catchesUp: true, clientRunId: input.runId });
  }

  /** The run of the thread that an answer with this id is for: ids of Tollgate name it, others mean the latest one. */
  async #runOf(userId: string, threadId: string, id: string): Promise<LocatedRun | undefined> {
    const { scope } = this.#deps;
    const runId = runIdOfCall(id);
    const run = runId === undefined ? undefined : await scope.locate(userId, { runId });
    return run?.threadId === threadId ? run : scope.locate(userId, { threadId });
  }

  /**
   * Restores the conversation of a thread: its latest run with the events that follow, or its messages if no run is in
   * the event log.
   * @throws TollgateError AGENT_NOT_FOUND, RATE_LIMITED, EVENTS_TRIMMED
   */
  async connect(
    request: FastifyRequest,
    reply: FastifyReply,
    agentId: string,
    input: RunAgentInput,
  ): Promise<FastifyReply> {
    const { scope, runs } = this.#deps;
    const { identity } = scope.caller(request);
    this.#agentName(agentId);
    const { threadId } = namesOf(identity.userId, input);
    const { allowed } = scope.countMessage(identity);
    const [located] = await Promise.all([runs.locate(identity.userId, { threadId }), allowed]);
    const isComplete = located !== undefined && located.after + 1 >= located.oldest;
    if (located && !isComplete && located.endedAtSeq === undefined) {
      throw new TollgateError('EVENTS_TRIMMED', { fields: { run_id: located.runId } });
    }
    if (!isComplete) return this.#sendMessages(request, reply, threadId, input);
    const history =
      input.messages.length > 0 ? undefined : await this.#threadMessages(identity.userId, threadId, located.runId);
    const id = clientRunId(input.threadId, located.requestId) ?? located.runId;
    return this.#stream(request, reply, { input, located, history, catchesUp: true, clientRunId: id });
  }

  /**
   * Requests the cancellation of a run of a thread: the named one, else the latest. Returns whether there was one.
   * @throws TollgateError AGENT_NOT_FOUND, RATE_LIMITED
   */
  async stop(
    request: FastifyRequest,
    agentId: string,
    { threadId, runId }: { readonly threadId: string; readonly runId: string | undefined },
  ): Promise<boolean> {
    const { scope, runs } = this.#deps;
    const { identity } = scope.caller(request);
    const { userId } = identity;
    this.#agentName(agentId);
    const names = namesOf(userId, { threadId, runId: runId ?? '' });
    const limit = scope.countMessage(identity);
    const located = runId === undefined ? await runs.locate(userId, { threadId: names.threadId }) : names;
    if (!located) {
      await limit.allowed;
      return false;
    }
    return (await runs.cancel(userId, located.runId, limit)) === 'asked';
  }

  /** The agents by the name that clients use, with the default agent under its own name and as `default`. */
  get agents(): Readonly<Record<string, string>> {
    const { all } = this.#deps.agents;
    const fallback = this.#deps.agents.get(undefined);
    const named = all.map(({ name, description }) => [name, description] as const);
    return Object.fromEntries(fallback ? [[DEFAULT_AGENT, fallback.description], ...named] : named);
  }

  /** @throws TollgateError AGENT_NOT_FOUND */
  #agentName(id: string): string | undefined {
    const { agents } = this.#deps;
    if (agents.get(id)) return id;
    if (id === DEFAULT_AGENT) return undefined;
    throw new TollgateError('AGENT_NOT_FOUND', { fields: { agents: agents.all.map(({ name }) => name) } });
  }

  async #stream(
    request: FastifyRequest,
    reply: FastifyReply,
    options: {
      readonly input: RunAgentInput;
      readonly located: LocatedRun;
      /** Messages before the run, for a client without messages. */
      readonly history?: readonly HistoryMessage[] | undefined;
      /** Calls for which a result of the client does not count. */
      readonly refused?: readonly string[];
      readonly catchesUp: boolean;
      readonly clientRunId: string;
    },
  ): Promise<FastifyReply> {
    const { input, located, catchesUp, refused = [] } = options;
    const { results, ...before } = splitMessages(input.messages, located.runId);
    for (const id of refused) results.delete(id);
    const history = options.history ?? before.history;
    const { threadId, protocolVersion } = input;
    const { runId: tollgateRunId, epoch, after } = located;
    const ignored = ignoredFields(input, this.#deps.agents.get(located.agent));
    const names = { threadId, runId: options.clientRunId, protocolVersion, tollgateRunId, ignored };
    const framing = await framingFor(request.headers.accept);
    const run = new AgUiRun(names, history, results);
    const encoder = agUiEncoder({ run, tollgateRunId, framing, catchesUp });
    // A client that comes back has left its earlier stream, which a proxy may keep open.
    return this.#deps.scope.stream(request, reply, {
      encoder,
      resumeFrom: { epoch, after },
      stream: `agui:${tollgateRunId}`,
    });
  }

  /** Answers with the messages of a thread, for a client that has none. */
  async #sendMessages(
    request: FastifyRequest,
    reply: FastifyReply,
    threadId: string,
    { messages, ...input }: RunAgentInput,
  ): Promise<FastifyReply> {
    const { userId } = this.#deps.scope.caller(request).identity;
    const stored = messages.length > 0 ? [] : await this.#threadMessages(userId, threadId);
    const framing = await framingFor(request.headers.accept);
    const names = { threadId: input.threadId, runId: input.runId };
    const version = input.protocolVersion === undefined ? {} : { protocolVersion: input.protocolVersion };
    const events: readonly AgUiEvent[] = [
      { type: 'RUN_STARTED', ...names, ...version },
      { type: 'MESSAGES_SNAPSHOT', messages: stored },
      { type: 'RUN_FINISHED', ...names },
    ];
    reply.header('content-type', framing.contentType).header('cache-control', 'no-cache, no-transform');
    // A snapshot without messages would remove what the user has typed meanwhile.
    return reply.send(stored.length === 0 ? Buffer.from(framing.keepAlive ?? '') : Buffer.from(framing.encode(events)));
  }

  /** @param latestRun run whose own events follow; its question is included, its answer is not */
  async #threadMessages(userId: string, threadId: string, latestRun?: string): Promise<readonly HistoryMessage[]> {
    const page = { threadId, before: undefined, limit: HISTORY_LENGTH };
    const { messages } = await this.#deps.threads.history(userId, page);
    return messages.toReversed().flatMap(({ role, text: content, run_id, message_id }) => {
      const run = String(run_id ?? message_id);
      if (role === 'user') return [{ id: questionId(run), role, content }];
      return role === 'assistant' && run !== latestRun ? [{ id: `${run}-answer`, role, content }] : [];
    });
  }
}

/**
 * Splits the messages of a client into those before the run, without those that the run itself has built, and the
 * client's results of its own tools in the run, by the id of the call.
 */
function splitMessages(messages: readonly HistoryMessage[], tollgateRunId: string) {
  const question = questionId(tollgateRunId);
  const isOfRun = ({ id }: HistoryMessage) => id !== question && id.startsWith(`${tollgateRunId}-`);
  const calls = new Set(messages.filter(isOfRun).flatMap(callIds));
  const isResult = (message: HistoryMessage): message is ToolMessage & HistoryMessage => {
    return message.role === 'tool' && typeof message.content === 'string' && calls.has(message.toolCallId);
  };
  const others = messages.filter((message) => !isOfRun(message));
  const results = others.filter(isResult).map((message) => [message.toolCallId, message] as const);
  return { history: others.filter((message) => !isResult(message)), results: new Map<string, ToolMessage>(results) };
}

function callIds({ toolCalls }: HistoryMessage): unknown[] {
  return Array.isArray(toolCalls) ? toolCalls.map((call: { readonly id?: unknown } | null) => call?.id) : [];
}
