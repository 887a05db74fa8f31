import type { AguiSettings } from '../../catalogue/remote-agents.ts';
import type { ToolCatalogue } from '../../catalogue/tool-catalogue.ts';
import type { Clock } from '../../lib/clock.ts';
import { foreignRequest } from '../../protocol/forms.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { ReportedTokens } from '../../runs/remote-log.ts';
import { readableResult } from '../model/tool-results.ts';
import { AguiReader, type RunEnd } from './agui-reader.ts';
import { RemoteFault } from './fault.ts';
import { type Answered, type Ask, inRounds } from './rounds.ts';
import { sumOfTokens, type Turn, type TurnRunner } from './turn.ts';

const EVENT_STREAM = 'text/event-stream';
/** Characters of a result; the event contains all of it. */
const RESULT_LENGTH = 65_536;

export interface AguiDeps {
  readonly clock: Clock;
  readonly tools: Pick<ToolCatalogue, 'get'>;
}

/** What the next request needs. */
interface Conversation {
  readonly messages: readonly Fields[];
  /** Text of the last message so far. */
  readonly text: string;
  /** The shared state. */
  readonly state: unknown;
  /** Tokens of the requests so far. */
  readonly tokens?: ReportedTokens | undefined;
  /** Answers to the interrupts of the last response. */
  readonly resume?: readonly Fields[];
}

/**
 * `kind: agui`: POST of a RunAgentInput to an AG-UI agent, whose events become events of the run. The agent's tools of
 * Tollgate, and those of the user's front end, are offered as client tools: the agent ends its run with the calls,
 * Tollgate or the front end executes them, and the next request has their results. Interrupts become input requests.
 */
export function aguiRunner(deps: AguiDeps): TurnRunner<AguiSettings> {
  return (turn) => {
    const { settings, task } = turn;
    const tools = [...toolsOf(turn, deps.tools), ...task.clientTools];
    return inRounds<Conversation>(turn, {
      first: { messages: initialMessages(turn), text: '', state: settings.state },
      maxRounds: settings.rounds,
      async exchange(before, number) {
        const runId = number === 1 ? task.runId : `${task.runId}_${number}`;
        const reader = new AguiReader(turn, deps.clock, before.state);
        const { asks, ...end } = await request(turn, reader, { runId, tools, ...before }).catch((thrown) => {
          throw withTokens(thrown, before.tokens);
        });
        const tokens = sumOfTokens([before.tokens, end.tokens]);
        const text = reader.text || before.text;
        if (asks.length === 0) return { answer: { text, tokens } };
        const calls = asks.filter((ask) => 'tool' in ask);
        const called = calls.length === 0 ? [] : [callsMessage(`${runId}_calls`, calls)];
        const state = { messages: [...before.messages, ...called], text, state: reader.state.value, tokens };
        return { asks, state };
      },
      tokensOf: ({ tokens }) => tokens,
      next({ resume: _answered, messages, ...kept }, answered) {
        const results = answered.flatMap((one) => ('outcome' in one ? [resultMessage(one)] : []));
        const resume = answered.flatMap((one) => ('answer' in one ? [resumeEntry(one)] : []));
        return { ...kept, messages: [...messages, ...results], ...(resume.length > 0 ? { resume } : {}) };
      },
    });
  };
}

/** Bills what earlier requests of a failed turn reported. */
function withTokens(thrown: unknown, before: Conversation['tokens']): unknown {
  if (!(thrown instanceof RemoteFault)) return thrown;
  const tokens = sumOfTokens([before, thrown.details.tokens]);
  return tokens ? new RemoteFault(thrown.reason, thrown.message, { ...thrown.details, tokens }) : thrown;
}

interface Round extends Pick<Conversation, 'messages' | 'resume'> {
  readonly runId: string;
  readonly tools: readonly unknown[];
}

async function request(
  turn: Turn<AguiSettings>,
  reader: AguiReader,
  { runId, messages, tools, resume }: Round,
): Promise<RunEnd> {
  const { task, settings, client, context, budget, toolAccess } = turn;
  // Some agents refuse fields that they do not know, so only those of every version are sent.
  const body = {
    threadId: task.threadId,
    runId,
    messages,
    state: reader.state.value,
    tools,
    context: settings.context,
    forwardedProps: {
      ...settings.forwarded_props,
      ...(toolAccess ? { tollgate: { mcp_url: toolAccess.url, token: toolAccess.token } } : {}),
    },
    ...(resume ? { resume } : {}),
  };
  const sent = { accept: EVENT_STREAM, body: JSON.stringify(body) };
  const response = await client.open(sent, { signal: context.signal, budget });
  if (response.contentType !== EVENT_STREAM) {
    response.close();
    throw new RemoteFault('invalid', 'the response is no event stream');
  }
  return reader.read(response.events());
}

function initialMessages({ task, settings, history }: Turn<AguiSettings>): Fields[] {
  // `instructions` of a task defaults to the description, which is meant for clients.
  const { instructions } = settings;
  return [
    ...(instructions === undefined ? [] : [{ id: 'instructions', role: 'system', content: instructions }]),
    ...history.map(({ role, content }, at) => ({ id: `history_${at}`, role, content })),
    { id: `${task.runId}_message`, role: 'user', content: task.message },
  ];
}

function toolsOf({ task }: Turn, catalogue: AguiDeps['tools']): Fields[] {
  return task.tools.flatMap((name) => {
    const tool = catalogue.get(name);
    if (!tool || tool.executor === 'none') return [];
    return [{ name, description: tool.description, parameters: tool.arguments }];
  });
}

function callsMessage(id: string, calls: readonly Extract<Ask, { readonly tool: string }>[]): Fields {
  const toolCalls = calls.map((call) => ({
    id: call.id,
    type: 'function',
    function: { name: call.tool, arguments: call.arguments || '{}' },
  }));
  return { id, role: 'assistant', content: '', toolCalls };
}

function resultMessage({ id, outcome }: Extract<Answered, { readonly outcome: unknown }>): Fields {
  return { id: `${id}_result`, role: 'tool', content: readableResult(outcome, RESULT_LENGTH).text, toolCallId: id };
}

/** A refused approval is an answer of its own; AG-UI has none for a form that was refused. */
function resumeEntry({ id, request, schema, answer }: Extract<Answered, { readonly answer: unknown }>): Fields {
  const isAnswered = answer.action === 'accept' || (answer.action === 'decline' && request.kind === 'approval');
  if (!isAnswered) return { interruptId: id, status: 'cancelled' };
  return { interruptId: id, status: 'resolved', payload: foreignRequest(undefined, schema).contentOf(answer) };
}
