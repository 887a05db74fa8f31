import { loadAgentCatalogue } from '../catalogue/agent-catalogue.ts';
import type { Config } from '../config.ts';
import { systemClock } from '../lib/clock.ts';
import { NO_TRACING } from '../lib/tracing.ts';
import { type Finding, findings, reasonOf } from './findings.ts';

/** Enough for a tool call without arguments, and little enough to cost nothing. */
const OUTPUT_TOKENS = 64;
const TOOL = 'tollgate_doctor';

/** Sends each model of the agents a short request, and one that it should answer with a tool call. */
export async function checkModels(config: Config): Promise<Finding[]> {
  const { AGENT_MODEL_URL: url, AGENT_MODEL_NAME: fallback, AGENT_MODEL_KEY: key } = config;
  const area = findings('model');
  if (url === undefined || fallback === undefined)
    return [area.ok('endpoint', 'none is configured: the built-in agent')];
  const { ChatModel, MODEL_LIMITS } = await import('../agents/model/chat-model.ts');
  const limits = { ...MODEL_LIMITS, outputTokens: OUTPUT_TOKENS };
  const client = new ChatModel({ url, key, clock: systemClock, tracing: NO_TRACING }, limits);
  const names = new Set(loadAgentCatalogue(config.CATALOGUE_DIR).all.map(({ model }) => model ?? fallback));
  return (await Promise.all([...names].map((model) => checkModel(client, model)))).flat();
}

type Client = InstanceType<typeof import('../agents/model/chat-model.ts').ChatModel>;

async function checkModel(client: Client, model: string): Promise<Finding[]> {
  const { ok, problem } = findings(`model ${model}`);
  try {
    await reply(client, model, 'Answer with the word "ready".', []);
  } catch (error) {
    return [problem('failed', 'reply', reasonOf(error), adviceFor(reasonOf(error)))];
  }
  try {
    const { calls } = await reply(client, model, `Call the tool ${TOOL} now.`, [TOOL]);
    if (calls.length > 0) return [ok('reply', 'received'), ok('tool call', 'received')];
    const advice =
      'Use a model that supports tools, and enable them at the endpoint (vLLM: --enable-auto-tool-choice).';
    return [ok('reply', 'received'), problem('warning', 'tool call', 'the model called no tool', advice)];
  } catch (error) {
    const reason = reasonOf(error);
    return [ok('reply', 'received'), problem('failed', 'tool call', reason, adviceFor(reason))];
  }
}

async function reply(client: Client, model: string, text: string, tools: readonly string[]) {
  const parameters = { type: 'object', properties: {} };
  const description = 'Confirms that tool calls work.';
  const stream = client.stream(
    {
      model,
      messages: [{ role: 'user', content: text }],
      tools: tools.map((name) => ({ type: 'function', function: { name, description, parameters } })),
      mustAnswer: false,
    },
    AbortSignal.timeout(60_000),
  );
  for await (const _piece of stream.text);
  return stream.reply();
}

function adviceFor(reason: string): string {
  if (/40[13]/.test(reason)) return 'Check AGENT_MODEL_KEY: the endpoint refuses it.';
  if (/404/.test(reason)) return 'Check AGENT_MODEL_URL (it usually ends with /v1) and the name of the model.';
  if (/400|422/.test(reason)) return 'The endpoint refuses a parameter of the request: check the name of the model.';
  if (/429/.test(reason)) return 'The endpoint limits the rate, or the account has no credit left.';
  return 'Check that AGENT_MODEL_URL can be reached from this host.';
}
