import type { ResponsesSettings } from '../../catalogue/remote-agents.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { ReportedTokens } from '../../runs/remote-log.ts';
import { asList, asNumber, asObject, asText } from '../model/json.ts';
import { readableResult } from '../model/tool-results.ts';
import type { RemoteBody } from './body.ts';
import { Budget } from './budget.ts';
import { RemoteFault } from './fault.ts';
import { Reconnects } from './reconnects.ts';
import { failedCall, RemoteCalls } from './remote-calls.ts';
import { type Answered, type Ask, inRounds, isClientTool, MAX_ROUNDS, type RoundEnd } from './rounds.ts';
import { sumOfTokens, type Turn, type TurnRunner, tokensOf } from './turn.ts';

/** Position in the stream of a stored response. */
interface Cursor {
  readonly id: string;
  /** `sequence_number` of the last event whose content is in the log. */
  readonly seq: number;
}

const EVENT_STREAM = 'text/event-stream';
/** Label of Tollgate's MCP server; its calls are in the log already. */
const SERVER_LABEL = 'tollgate';
const CANCEL_MS = 5_000;
/** Characters of a result; the event contains all of it. */
const RESULT_LENGTH = 65_536;
const ID = /^[\w.:-]{1,256}$/;
/** Statuses of a stored response that the server does not have any more. */
const FORGOTTEN: ReadonlySet<number | undefined> = new Set([400, 404, 410]);

/**
 * `kind: responses`: a server with OpenAI's Responses API. With `background` the server stores the response, and the
 * stream continues after the last event in the log: after a lost connection, and under the worker that takes over.
 */
export function responsesRunner(clock: Clock): TurnRunner<ResponsesSettings> {
  return (turn) =>
    inRounds<Input>(turn, {
      first: { items: initialItems(turn) },
      maxRounds: MAX_ROUNDS,
      resumable: turn.settings.background,
      async exchange(input, _number, begun) {
        const stream = new ResponseStream(turn, clock, { input, isTakenOver: begun === 'resumed' });
        try {
          return await stream.read();
        } catch (thrown) {
          if (thrown instanceof RemoteFault || turn.context.signal.aborted) stream.cancel();
          throw thrown;
        }
      },
      tokensOf: ({ tokens }) => tokens,
      next: ({ items, ...kept }, answered) => ({ ...kept, items: [...items, ...answered.map(outputOf)] }),
    });
}

/** The input of a request. */
interface Input {
  readonly items: readonly Fields[];
  /** Id of the stored response that the request continues. */
  readonly previous?: string;
  /** Tokens of earlier requests. */
  readonly tokens?: ReportedTokens | undefined;
}

function initialItems({ task, history }: Turn): readonly Fields[] {
  return [...history.map(({ role, content }) => ({ role, content })), { role: 'user', content: task.message }];
}

function outputOf(answered: Answered): Fields {
  const { id } = answered;
  if ('answer' in answered) {
    return { type: 'mcp_approval_response', approval_request_id: id, approve: answered.answer.action === 'accept' };
  }
  const output = readableResult(answered.outcome, RESULT_LENGTH).text;
  return { type: 'function_call_output', call_id: id, output };
}

class ResponseStream {
  readonly #turn: Turn<ResponsesSettings>;
  readonly #calls: RemoteCalls;
  readonly #reconnects: Reconnects;
  readonly #isTakenOver: boolean;
  #cursor: Cursor | undefined;
  #text = '';
  #refused = false;
  readonly #input: Input;
  readonly #items: Fields[] = [];

  constructor(
    turn: Turn<ResponsesSettings>,
    clock: Clock,
    { input, isTakenOver }: { readonly input: Input; readonly isTakenOver: boolean },
  ) {
    this.#turn = turn;
    this.#input = input;
    this.#isTakenOver = isTakenOver;
    this.#calls = new RemoteCalls(turn.context.remote, clock);
    this.#reconnects = new Reconnects(clock, turn.context.signal);
    this.#cursor = isTakenOver ? cursorOf(turn.context.remote.cursor) : undefined;
  }

  async read(): Promise<RoundEnd<Input>> {
    for (;;) {
      try {
        const body = this.#cursor ? await this.#continue(this.#cursor) : await this.#start();
        const answer = await this.#answer(body);
        if (answer) return answer;
        throw new RemoteFault('interrupted', 'the stream ended without its last event');
      } catch (thrown) {
        if (!this.#cursor || !this.#turn.settings.background) throw thrown;
        await this.#reconnects.after(thrown);
      }
    }
  }

  /** Cancels a stored response without waiting: the run has ended. */
  cancel(): void {
    const { client, settings } = this.#turn;
    if (!this.#cursor || !settings.background) return;
    const request = { url: this.#url(`/${this.#cursor.id}/cancel`), accept: 'application/json', body: '{}' };
    const scope = { signal: AbortSignal.timeout(CANCEL_MS), budget: new Budget(settings) };
    client.open(request, scope).then(
      (body) => body.close(),
      () => undefined,
    );
  }

  #start(): Promise<RemoteBody> {
    const { client, context, budget } = this.#turn;
    const request = { url: this.#url(''), accept: EVENT_STREAM, body: JSON.stringify(bodyOf(this.#turn, this.#input)) };
    return client.open(request, { signal: context.signal, budget });
  }

  async #continue({ id, seq }: Cursor): Promise<RemoteBody> {
    const { client, context, budget, settings } = this.#turn;
    const url = this.#url(`/${id}?stream=true&starting_after=${seq}`);
    try {
      return await client.open({ method: 'GET', url, accept: EVENT_STREAM }, { signal: context.signal, budget });
    } catch (thrown) {
      const isForgotten = thrown instanceof RemoteFault && FORGOTTEN.has(thrown.details.status);
      if (!isForgotten) throw thrown;
      this.#cursor = undefined;
      if (!this.#isTakenOver || !settings.repeatable) {
        throw new RemoteFault('not_resumable', 'the server does not have the response any more');
      }
      context.remote.restart();
      return this.#start();
    }
  }

  /** @returns the end of the response; undefined if the stream ended before it */
  async #answer(body: RemoteBody): Promise<RoundEnd<Input> | undefined> {
    if (body.contentType !== EVENT_STREAM) {
      const response = asObject(await body.json());
      if (!response) throw new RemoteFault('invalid', 'the response is no event stream');
      await this.#created(response, -1);
      return this.#ended(response);
    }
    for await (const value of body.events()) {
      const event = asObject(value);
      const type = asText(event?.type);
      if (!event || type === undefined) throw new RemoteFault('invalid', 'an event has no type');
      const seq = asNumber(event.sequence_number) ?? (this.#cursor?.seq ?? -1) + 1;
      // A server that ignores `starting_after` begins from the start.
      if (this.#cursor && seq <= this.#cursor.seq) continue;
      this.#reconnects.progress();
      const response = asObject(event.response);
      if (response) await this.#created(response, seq);
      const answer = response && (await this.#ended(response));
      if (answer) return answer;
      if (this.#cursor) this.#cursor = { ...this.#cursor, seq };
      await this.#event(type, event);
    }
    return undefined;
  }

  /** Stores the id of the response as soon as it is known. */
  async #created({ id }: Fields, seq: number): Promise<void> {
    if (this.#cursor || !this.#turn.settings.background || typeof id !== 'string' || !ID.test(id)) return;
    this.#cursor = { id, seq };
    await this.#turn.context.remote.save(this.#cursor);
  }

  async #event(type: string, event: Fields): Promise<void> {
    const { remote } = this.#turn.context;
    const cursor = this.#cursor;
    switch (type) {
      case 'response.output_text.delta':
      case 'response.refusal.delta': {
        this.#refused ||= type === 'response.refusal.delta';
        const delta = deltaOf(event);
        this.#text += delta;
        return remote.text(delta, cursor);
      }
      case 'response.reasoning_text.delta':
      case 'response.reasoning_summary_text.delta':
        return remote.reasoning(deltaOf(event), cursor);
      case 'response.output_item.added':
        if (asObject(event.item)?.type === 'message') {
          remote.endMessage(cursor);
          this.#text = '';
        }
        return;
      case 'response.output_item.done':
        return this.#item(asObject(event.item) ?? {}, cursor);
      case 'error':
        throw new RemoteFault('error', 'the server sent an error event', { agentCode: asText(event.code) });
      default:
        if (!type.startsWith('response.')) this.#turn.ignored(type);
    }
  }

  /** Appends a completed call of a tool of the server. */
  async #item(item: Fields, cursor: Cursor | undefined): Promise<void> {
    const type = asText(item.type) ?? '';
    this.#items.push(item);
    if (this.#askOf(item)) return;
    if (!type.endsWith('_call') || item.server_label === SERVER_LABEL) return;
    const id = item.call_id ?? item.id;
    await this.#calls.begin(id, item.name ?? type, item.arguments ?? {});
    if (type === 'function_call') return;
    const failed = item.error !== undefined && item.error !== null;
    const outcome = failed ? failedCall(undefined) : { success: true, result: item.output ?? item.result ?? null };
    await this.#calls.end(id, outcome, cursor);
  }

  /** What an item of the output needs before the next request: a call of the user's front end, or an approval. */
  #askOf({ type, id, call_id, name, arguments: args }: Fields): Ask | undefined {
    const tool = asText(name) ?? '';
    if (type === 'mcp_approval_request' && typeof id === 'string') {
      const message = `The agent asks to use ${tool.slice(0, 128) || 'a tool'} of its server.`;
      return { id, request: { kind: 'approval', message } };
    }
    if (type !== 'function_call' || !isClientTool(this.#turn.task, tool)) return undefined;
    return { id: asText(call_id) ?? asText(id) ?? '', tool, arguments: asText(args) ?? '{}' };
  }

  #nextInput(output: readonly Fields[], tokens: Input['tokens']): Input {
    const { background } = this.#turn.settings;
    if (background && this.#cursor) return { items: [], previous: this.#cursor.id, tokens };
    return { items: [...this.#input.items, ...output], tokens };
  }

  /** @returns the end of a response that has ended; undefined for one in progress */
  async #ended(response: Fields): Promise<RoundEnd<Input> | undefined> {
    const reported = tokensOf(response.usage);
    const tokens = sumOfTokens([this.#input.tokens, reported]);
    switch (response.status) {
      case 'completed':
      case 'incomplete': {
        await this.#calls.endAll();
        const output = listOf(response.output);
        const items = output.length > 0 ? output : this.#items;
        const asks = items.flatMap((item) => this.#askOf(item) ?? []);
        if (asks.length > 0) return { asks, state: this.#nextInput(items, tokens) };
        const whole = textOf(response);
        if (this.#text === '' && whole !== '' && !this.#isTakenOver) await this.#turn.context.remote.text(whole);
        const finish = this.#refused ? 'refusal' : finishOf(response);
        return { answer: { text: whole || this.#text, tokens, ...(finish ? { finish } : {}) } };
      }
      case 'failed': {
        const agentCode = asText(asObject(response.error)?.code);
        throw new RemoteFault('error', 'the response failed', { agentCode, tokens });
      }
      case 'cancelled':
        throw new RemoteFault('cancelled', 'the response was cancelled', { tokens });
      default:
        return undefined;
    }
  }

  #url(path: string): string {
    const { url } = this.#turn.settings;
    return `${url.replace(/\/$/, '')}/responses${path}`;
  }
}

function bodyOf({ task, settings, toolAccess }: Turn<ResponsesSettings>, { items, previous }: Input): Fields {
  const { model = task.agent, instructions } = settings;
  const ofClient = task.clientTools.map((tool) => ({ type: 'function', ...tool, strict: false }));
  const ofGateway = toolAccess && {
    type: 'mcp',
    server_label: SERVER_LABEL,
    server_url: toolAccess.url,
    authorization: toolAccess.token,
    allowed_tools: toolAccess.names,
    require_approval: 'never',
  };
  const tools = ofGateway ? [ofGateway, ...ofClient] : ofClient;
  return {
    ...settings.extra_body,
    model,
    ...(instructions === undefined ? {} : { instructions }),
    input: items,
    ...(previous === undefined ? {} : { previous_response_id: previous }),
    stream: true,
    background: settings.background,
    ...(settings.background ? { store: true } : {}),
    ...(tools.length > 0 ? { tools } : {}),
  };
}

/** @throws RemoteFault not_resumable for a position of another kind of agent */
function cursorOf(stored: unknown): Cursor {
  const { id, seq } = asObject(stored) ?? {};
  if (typeof id === 'string' && typeof seq === 'number') return { id, seq };
  throw new RemoteFault('not_resumable', 'the stored position is not that of a response');
}

function deltaOf({ delta }: Fields): string {
  const text = asText(delta);
  if (text === undefined) throw new RemoteFault('invalid', 'a delta is no text');
  return text;
}

/** Returns the text of the last message of a response. */
function textOf({ output }: Fields): string {
  const messages = asList(output).map(asObject);
  const last = messages.findLast((item) => item?.type === 'message');
  const pieces = asList(last?.content).map(asObject);
  return pieces.map((piece) => asText(piece?.text) ?? asText(piece?.refusal) ?? '').join('');
}

function finishOf({ status, incomplete_details: details }: Fields): 'length' | 'content_filter' | undefined {
  if (status !== 'incomplete') return undefined;
  return asObject(details)?.reason === 'content_filter' ? 'content_filter' : 'length';
}

function listOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value.map(asObject).filter((item) => item !== undefined) : [];
}
