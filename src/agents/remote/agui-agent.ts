import type { AguiSettings } from '../../catalogue/remote-agents.ts';
import type { ToolCatalogue } from '../../catalogue/tool-catalogue.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { ReportedTokens } from '../../runs/remote-log.ts';
import { asObject, parseJson } from '../model/json.ts';
import { readableResult } from '../model/tool-results.ts';
import { AguiReader, type PendingCall } from './agui-reader.ts';
import { RemoteFault } from './fault.ts';
import { beginTurn, sumOfTokens, type Turn, type TurnAnswer, type TurnRunner } from './turn.ts';

const EVENT_STREAM = 'text/event-stream';
/** Characters of a result; the event contains all of it. */
const RESULT_LENGTH = 65_536;

export interface AguiDeps {
  readonly clock: Clock;
  readonly tools: Pick<ToolCatalogue, 'get'>;
}

/**
 * `kind: agui`: POST of a RunAgentInput to an AG-UI agent, whose events become events of the run. The agent's tools of
 * Tollgate are offered as client tools: the agent ends its run with the calls, Tollgate executes them as calls of the
 * run, and the next request has their results.
 */
export function aguiRunner(deps: AguiDeps): TurnRunner<AguiSettings> {
  return async (turn) => {
    beginTurn(turn, false);
    const { settings, task } = turn;
    const reader = new AguiReader(turn, deps.clock, settings.state);
    const messages: Fields[] = initialMessages(turn);
    const tools = toolsOf(turn, deps.tools);
    const tokens: (ReportedTokens | undefined)[] = [];
    for (let round = 1; round <= settings.rounds; round++) {
      const runId = round === 1 ? task.runId : `${task.runId}_${round}`;
      const { pending, ...end } = await request(turn, reader, { runId, messages, tools });
      tokens.push(end.tokens);
      if (pending.length === 0) return answerOf(reader, tokens);
      messages.push(callsMessage(`${runId}_calls`, pending), ...(await resultsOf(turn, pending)));
    }
    throw new RemoteFault('too_large', 'more rounds than the setting allows', { tokens: sumOfTokens(tokens) });
  };
}

function answerOf(reader: AguiReader, tokens: readonly (ReportedTokens | undefined)[]): TurnAnswer {
  return { text: reader.text, tokens: sumOfTokens(tokens) };
}

interface Round {
  readonly runId: string;
  readonly messages: readonly Fields[];
  readonly tools: readonly Fields[];
}

async function request(turn: Turn<AguiSettings>, reader: AguiReader, { runId, messages, tools }: Round) {
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

function callsMessage(id: string, calls: readonly PendingCall[]): Fields {
  const toolCalls = calls.map((call) => ({
    id: call.id,
    type: 'function',
    function: { name: call.tool, arguments: call.arguments || '{}' },
  }));
  return { id, role: 'assistant', content: '', toolCalls };
}

/** Executes the calls concurrently, as calls of the run. Rejects only after all have ended, so that each is recorded. */
async function resultsOf({ context }: Turn, calls: readonly PendingCall[]): Promise<Fields[]> {
  await context.remote.flush();
  const results = await Promise.allSettled(
    calls.map(async ({ id, tool, arguments: json }) => {
      const args = asObject(parseJson(json || '{}'));
      if (!args)
        return {
          id,
          text: JSON.stringify({ error: { code: 'FORMAT_ERROR', message: 'The arguments are not a JSON object.' } }),
        };
      return { id, text: readableResult(await context.call(tool, args), RESULT_LENGTH).text };
    }),
  );
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    const { id, text } = result.value;
    return { id: `${id}_result`, role: 'tool', content: text, toolCallId: id };
  });
}
