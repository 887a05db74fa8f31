import { createHmac } from 'node:crypto';
import type { HttpSettings } from '../../catalogue/remote-agents.ts';
import { type Clock, systemClock } from '../../lib/clock.ts';
import type { Fields } from '../../protocol/messages.ts';
import { asObject, asText } from '../model/json.ts';
import { RemoteFault } from './fault.ts';
import { failedCall, RemoteCalls } from './remote-calls.ts';
import { beginTurn, type Turn, type TurnAnswer, type TurnRunner, tokensOf } from './turn.ts';

export const SIGNATURE_HEADER = 'tollgate-signature';

/**
 * Returns the value of the signature header: the time in seconds, and the HMAC-SHA256 of the time, a dot and the body.
 * A receiver that refuses old times refuses replayed requests.
 */
export function signatureOf(secret: string, body: string, now: number): string {
  const time = Math.floor(now / 1_000);
  return `t=${time},v1=${createHmac('sha256', secret).update(`${time}.${body}`).digest('hex')}`;
}

/**
 * `kind: http`: a signed POST with the task; the response is a stream of JSON lines (docs/agents.md). The agent calls
 * tools of the gateway through MCP, with the token of the run.
 */
export function httpRunner(secret: string, clock: Clock = systemClock): TurnRunner<HttpSettings> {
  return async (turn) => {
    const begun = beginTurn(turn, false);
    const body = JSON.stringify(taskOf(turn, begun === 'restarted'));
    const request = { accept: 'application/x-ndjson', body };
    const headers = { [SIGNATURE_HEADER]: signatureOf(secret, body, clock.now()) };
    const { context, budget, client } = turn;
    const response = await client.open({ ...request, headers }, { signal: context.signal, budget });
    return new LineReader(turn, clock).read(response.lines());
  };
}

function taskOf({ task, history, toolAccess }: Turn, isRepeated: boolean): Fields {
  const { runId, threadId, agent, userId, caller, message, instructions, deadlineAt } = task;
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

/** Reads the lines of one response. */
class LineReader {
  readonly #turn: Turn;
  readonly #calls: RemoteCalls;
  #text = '';

  constructor(turn: Turn, clock: Clock) {
    this.#turn = turn;
    this.#calls = new RemoteCalls(turn.context.remote, clock);
  }

  async read(lines: AsyncIterable<unknown>): Promise<TurnAnswer> {
    for await (const value of lines) {
      const line = asObject(value);
      if (!line) throw new RemoteFault('invalid', 'a line is no JSON object');
      if (line.type === 'done') return this.#done(line);
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
