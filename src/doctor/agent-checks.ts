import { References } from '../agents/references.ts';
import { A2A_VERSION, jsonRpcInterface } from '../agents/remote/a2a-rpc.ts';
import { Budget } from '../agents/remote/budget.ts';
import { RemoteClient, type RemoteRequest } from '../agents/remote/client.ts';
import { RemoteFault } from '../agents/remote/fault.ts';
import { SIGNATURE_HEADER, signatureOf } from '../agents/remote/http-agent.ts';
import { type AgentCatalogue, isRemote, loadAgentCatalogue, type RemoteAgent } from '../catalogue/agent-catalogue.ts';
import { type Config, UnusableConfiguration } from '../config.ts';
import { Breaker } from '../lib/breaker.ts';
import { systemClock } from '../lib/clock.ts';
import { NO_TRACING } from '../lib/tracing.ts';
import { type Finding, findings, reasonOf } from './findings.ts';

const TIMEOUT_MS = 30_000;
const EVENT_STREAM = 'text/event-stream';
/** Statuses of a server that reads a request and does not execute it. */
const READ: ReadonlySet<number | undefined> = new Set([400, 404, 409, 422]);
const REFUSED: ReadonlySet<number | undefined> = new Set([401, 403]);

/** Sends each agent on another server a request that starts nothing, in the protocol of its kind. */
export async function checkAgents(config: Config): Promise<Finding[]> {
  let agents: AgentCatalogue;
  try {
    agents = loadAgentCatalogue(config.CATALOGUE_DIR);
  } catch {
    // The checks of the models report it.
    return [];
  }
  const found = await Promise.all(agents.all.filter(isRemote).map((agent) => checkAgent(config, agent)));
  return found.flat();
}

async function checkAgent(config: Config, agent: RemoteAgent): Promise<Finding[]> {
  const { ok, problem } = findings(`agent ${agent.name}`);
  let client: RemoteClient | undefined;
  try {
    const references = new References(
      { variable: config.variable, production: config.ENVIRONMENT === 'production' },
      'agents',
    );
    references.checkUrl(agent.url, agent.name);
    const headers = references.values(agent.headers, agent.name);
    if (agent.kind === 'http') references.secret(agent.secret, `${agent.name}: secret`);
    const breaker = new Breaker({ clock: systemClock }, { isFault: () => false, onChange: () => undefined });
    client = new RemoteClient({ clock: systemClock, tracing: NO_TRACING, breaker }, { url: agent.url, headers }, agent);
    return await CHECKS[agent.kind](agent, client, { ok, problem });
  } catch (error) {
    if (error instanceof UnusableConfiguration) {
      const advice = 'Correct the row; the worker does not start before.';
      return [problem('failed', 'settings', error.message.trim(), advice)];
    }
    return [problem('failed', 'request', textOf(error), adviceFor(error))];
  } finally {
    await client?.close();
  }
}

type Check = (agent: RemoteAgent, client: RemoteClient, found: ReturnType<typeof findings>) => Promise<Finding[]>;

const CHECKS: Readonly<Record<RemoteAgent['kind'], Check>> = {
  /** A valid request would run the agent. One that is not signed by the secret must be refused. */
  async http(agent, client, { ok, problem }) {
    const body = '{}';
    const headers = { [SIGNATURE_HEADER]: signatureOf('not the secret', body, Date.now()) };
    const status = await statusOf(agent, client, { accept: 'application/x-ndjson', headers, body });
    if (REFUSED.has(status)) return [ok('request', 'refuses a wrong signature')];
    const advice = 'Check the signature of every request: anyone could run the agent (docs/agents.md).';
    return [problem('warning', 'request', `answered HTTP ${status} to a wrong signature`, advice)];
  },

  /** An empty object is no RunAgentInput. */
  async agui(agent, client, found) {
    return readable(await statusOf(agent, client, { accept: EVENT_STREAM, body: '{}' }), 'a RunAgentInput', found);
  },

  async responses(agent, client, found) {
    const url = `${agent.url.replace(/\/$/, '')}/responses/resp_tollgate_doctor`;
    return readable(await statusOf(agent, client, { method: 'GET', url, accept: 'application/json' }), 'an id', found);
  },

  async a2a(agent, client, found) {
    const { ok, problem } = found;
    const headers = A2A_VERSION;
    const card = { method: 'GET', url: client.resolve(cardOf(agent)), accept: 'application/json', headers } as const;
    let url = agent.url;
    const findingsOfCard: Finding[] = [];
    try {
      const body = await client.open(card, scopeOf(agent));
      url = client.resolve(jsonRpcInterface(await body.json()).url);
      findingsOfCard.push(ok('agent card', 'has a JSON-RPC interface of version 1'));
    } catch (error) {
      if (!(error instanceof RemoteFault) || error.details.status !== 404) throw error;
      const advice = 'Tollgate sends requests to the url itself; set "card" if the card is elsewhere.';
      findingsOfCard.push(problem('warning', 'agent card', 'there is none', advice));
    }
    const params = { id: 'tollgate_doctor' };
    const rpc = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'GetTask', params });
    const body = await client.open({ url, accept: 'application/json', headers, body: rpc }, scopeOf(agent));
    const answer = (await body.json()) as { readonly jsonrpc?: unknown } | null;
    if (answer?.jsonrpc === '2.0') return [...findingsOfCard, ok('request', 'answers JSON-RPC')];
    return [...findingsOfCard, problem('failed', 'request', 'the answer is no JSON-RPC', 'Check the URL.')];
  },
};

function cardOf(agent: RemoteAgent): string {
  return agent.kind === 'a2a' ? agent.card : '';
}

/** The server has read the request, and refuses what it asks for. */
function readable(status: number, what: string, { ok, problem }: ReturnType<typeof findings>): Finding[] {
  if (READ.has(status)) return [ok('request', `reads requests, and refuses ${what} that is none (HTTP ${status})`)];
  if (REFUSED.has(status)) return [refused(status, problem)];
  if (status === 405) return [problem('failed', 'request', 'HTTP 405', 'Check the URL: it has no such method.')];
  const advice = `A request without ${what} should be refused: check the URL and the kind.`;
  return [problem('warning', 'request', `answered HTTP ${status}`, advice)];
}

function refused(status: number, problem: ReturnType<typeof findings>['problem']): Finding {
  return problem(
    'failed',
    'request',
    `HTTP ${status}`,
    'Check "headers" of the row: the server refuses the credential.',
  );
}

function scopeOf(agent: RemoteAgent) {
  return { signal: AbortSignal.timeout(TIMEOUT_MS), budget: new Budget(agent) };
}

/** @throws RemoteFault for a server that cannot be reached or is unavailable */
async function statusOf(agent: RemoteAgent, client: RemoteClient, request: RemoteRequest): Promise<number> {
  try {
    (await client.open(request, scopeOf(agent))).close();
    return 200;
  } catch (error) {
    const status = error instanceof RemoteFault && error.reason === 'refused' ? error.details.status : undefined;
    if (status === undefined) throw error;
    return status;
  }
}

function textOf(error: unknown): string {
  return error instanceof RemoteFault ? `${error.reason}: ${error.message}` : reasonOf(error);
}

function adviceFor(error: unknown): string {
  const { reason, details } = error instanceof RemoteFault ? error : { reason: 'unreachable', details: {} };
  if (REFUSED.has(details.status)) return 'Check "headers" of the row: the server refuses the credential.';
  if (reason === 'invalid') return 'Check the URL and the kind: the server speaks another protocol.';
  if (reason === 'refused') return 'Check the URL and the kind of the row.';
  return 'Check that the URL can be reached from this host, and the log of the agent.';
}
