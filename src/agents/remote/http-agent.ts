import { createHmac } from 'node:crypto';
import { z } from 'zod';
import type { HttpSettings } from '../../catalogue/remote-agents.ts';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { FREE_TEXT } from '../../protocol/forms.ts';
import { distinct, FormSchema } from '../../protocol/input.ts';
import type { Fields } from '../../protocol/messages.ts';
import { asList, asObject, asText } from '../model/json.ts';
import { RemoteFault } from './fault.ts';
import { failedCall, RemoteCalls } from './remote-calls.ts';
import { type Answered, type Ask, inRounds, MAX_ROUNDS, type RoundEnd } from './rounds.ts';
import { type Turn, type TurnAnswer, type TurnRunner, tokensOf } from './turn.ts';

export const SIGNATURE_HEADER = 'tollgate-signature';

/**
 * Returns the value of the signature header: the time in seconds, and the HMAC-SHA256 of the time, a dot and the body.
 * A receiver that refuses old times refuses replayed requests.
 */
export function signatureOf(secret: string, body: string, now: number): string {
  const time = Math.floor(now / 1_000);
  return `t=${time},v1=${createHmac('sha256', secret).update(`${time}.${body}`).digest('hex')}`;
}

/** What the agent left with its last response, and the answers to its requests; null for the first request. */
type Continued = { readonly state: unknown; readonly answers: readonly Fields[] } | null;

/**
 * `kind: http`: a signed POST with the task; the response is a stream of JSON lines (docs/agents.md). The agent calls
 * tools of the gateway through MCP, with the token of the run. A response can end with requests to the user, or to the
 * user's front end; the next POST has the answers.
 */
export function httpRunner(secret: string, clock: Clock = systemClock): TurnRunner<HttpSettings> {
  return (turn) => {
    const { context, budget, client } = turn;
    return inRounds<Continued>(turn, {
      first: null,
      maxRounds: MAX_ROUNDS,
      async exchange(continued, _number, begun) {
        const body = JSON.stringify({ ...taskOf(turn, begun === 'restarted'), continued });
        const request = { accept: 'application/x-ndjson', body };
        const headers = { [SIGNATURE_HEADER]: signatureOf(secret, body, clock.now()) };
        const response = await client.open({ ...request, headers }, { signal: context.signal, budget });
        return new LineReader(turn, clock).read(response.lines());
      },
      next: (continued, answered) => ({ state: continued?.state ?? null, answers: answered.map(answerFields) }),
    });
  };
}

function answerFields(answered: Answered): Fields {
  const { id } = answered;
  if ('answer' in answered) return { id, ...answered.answer };
  const { success, result, error } = answered.outcome;
  return success ? { id, result } : { id, error };
}

function taskOf({ task, history, toolAccess }: Turn, isRepeated: boolean): Fields {
  const { runId, threadId, agent, userId, caller, message, instructions, deadlineAt, clientTools } = task;
  return {
    version: 1,
    run_id: runId,
    thread_id: threadId,
    agent,
    user: { id: userId, plan: caller.plan },
    message,
    history: history.map(({ role, content }) => ({ role, text: content })),
    instructions,
    deadline: new Date(deadlineAt).toISOString(),
    repeated: isRepeated,
    client_tools: clientTools,
    tools: toolAccess
      ? {
          mcp_url: toolAccess.url,
          token: toolAccess.token,
          expires_at: new Date(toolAccess.expiresAt).toISOString(),
          names: toolAccess.names,
        }
      : null,
  };
}

const RequestId = z.string().min(1).max(128);
const Message = z.string().min(1).max(2_000);
/** A request of the line `wait`. */
const Requested = z.discriminatedUnion('kind', [
  z.looseObject({ id: RequestId, kind: z.literal('approval'), message: Message }),
  z.looseObject({
    ...{ id: RequestId, kind: z.literal('choice'), message: Message },
    choices: distinct(z.array(z.string().min(1).max(200)).min(1).max(100)),
  }),
  z.looseObject({ id: RequestId, kind: z.literal('form'), message: Message, schema: FormSchema.optional() }),
  z.looseObject({
    ...{ id: RequestId, kind: z.literal('tool'), tool: z.string().min(1).max(128) },
    arguments: z.record(z.string(), z.unknown()).default({}),
  }),
]);

/** @throws RemoteFault for a request that is none */
function askOf(value: unknown): Ask {
  const { data } = Requested.safeParse(value);
  if (!data) throw new RemoteFault('invalid', 'a request of a line "wait" is not of a known form');
  const { id } = data;
  switch (data.kind) {
    case 'tool':
      return { id, tool: data.tool, arguments: JSON.stringify(data.arguments) };
    case 'choice':
      return { id, request: { kind: data.kind, message: data.message, choices: data.choices } };
    case 'form':
      return { id, request: { kind: data.kind, message: data.message, schema: data.schema ?? FREE_TEXT } };
    case 'approval':
      return { id, request: { kind: data.kind, message: data.message } };
  }
}

/** Reads the lines of one response. */
class LineReader {
  readonly #turn: Turn;
  readonly #calls: RemoteCalls;
  #text = '';

  constructor(turn: Turn, clock: Clock) {
    this.#turn = turn;
    this.#calls = new RemoteCalls(turn.context.remote, clock);
  }

  async read(lines: AsyncIterable<unknown>): Promise<RoundEnd<Continued>> {
    for await (const value of lines) {
      const line = asObject(value);
      if (!line) throw new RemoteFault('invalid', 'a line is no JSON object');
      if (line.type === 'done') return { answer: await this.#done(line) };
      if (line.type === 'wait') return this.#wait(line);
      await this.#line(line);
    }
    throw new RemoteFault('interrupted', 'the response ended without a line "done"');
  }

  async #line(line: Fields): Promise<void> {
    const { remote } = this.#turn.context;
    switch (line.type) {
      case 'think':
        return remote.reasoning(textOf(line, 'text'));
      case 'text': {
        const delta = textOf(line, 'delta');
        this.#text += delta;
        return remote.text(delta);
      }
      case 'call':
        return this.#calls.begin(line.id, line.tool, line.arguments ?? {});
      case 'result': {
        const outcome = 'error' in line ? failedCall(line.error) : { success: true, result: line.result ?? null };
        if (!(await this.#calls.end(line.id, outcome))) this.#turn.ignored('result without call');
        return;
      }
      case 'state':
        return remote.event('agent_state', { snapshot: line.state ?? null });
      case 'error': {
        const retryable = typeof line.retryable === 'boolean' ? line.retryable : undefined;
        const details = { agentCode: asText(line.code), retryable, tokens: tokensOf(line.usage) };
        throw new RemoteFault('error', 'the agent reported an error', details);
      }
      default:
        this.#turn.ignored(String(line.type).slice(0, 64));
    }
  }

  async #wait({ requests, state = null }: Fields): Promise<RoundEnd<Continued>> {
    const asks = asList(requests).map(askOf);
    if (asks.length === 0) throw new RemoteFault('invalid', 'a line "wait" without requests');
    await this.#calls.endAll();
    return { asks, state: { state, answers: [] } };
  }

  async #done(line: Fields): Promise<TurnAnswer> {
    await this.#calls.endAll();
    return { text: asText(line.final_response)?.toWellFormed() ?? this.#text, tokens: tokensOf(line.usage) };
  }
}

function textOf(line: Fields, field: string): string {
  const text = asText(line[field]);
  if (text === undefined) throw new RemoteFault('invalid', `"${field}" of a line is no text`);
  return text;
}
