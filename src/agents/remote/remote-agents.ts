import { type AgentCatalogue, isRemote, type RemoteAgent } from '../../catalogue/agent-catalogue.ts';
import { BREAKER_STATE_NUMBERS, Breaker } from '../../lib/breaker.ts';
import type { Clock } from '../../lib/clock.ts';
import { type Logger, userHash } from '../../lib/logger.ts';
import type { Metrics } from '../../lib/metrics.ts';
import type { Tracing } from '../../lib/tracing.ts';
import { TollgateError } from '../../protocol/errors.ts';
import { retryDuringOutage } from '../../redis/errors.ts';
import type { Agent, AgentContext, AgentTask } from '../../runs/agent.ts';
import type { ReportedTokens } from '../../runs/remote-log.ts';
import { BilledFailure, type RunAnswer } from '../../runs/run-end.ts';
import type { Threads } from '../../threads/threads.ts';
import { OUTAGE_RETRY_MS } from '../../tools/outcome.ts';
import { type ThreadMessage, threadMessages } from '../model/prompt.ts';
import { type ReferenceOptions, References } from '../references.ts';
import { summaryOf } from '../summary.ts';
import { a2aRunner } from './a2a-agent.ts';
import { type AguiDeps, aguiRunner } from './agui-agent.ts';
import { Budget } from './budget.ts';
import { RemoteClient } from './client.ts';
import { RemoteFault } from './fault.ts';
import { httpRunner } from './http-agent.ts';
import { responsesRunner } from './responses-agent.ts';
import type { ToolAccess, Turn, TurnAnswer } from './turn.ts';

/** Types of ignored events that one log line names. */
const MAX_TYPES = 20;
const FREE_ONLY = 'Only agents of this deployment are available until the session is verified again. Try again later.';

export interface RemoteAgentsDeps {
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'agentTurns' | 'agentBreaker' | 'agentIgnoredEvents'>;
  readonly logger: Logger;
  readonly tracing: Tracing;
  readonly agents: AgentCatalogue;
  readonly threads: Pick<Threads, 'history'>;
  readonly tools: AguiDeps['tools'];
  /** Issues the token of a run for the tools of the gateway; undefined if the agent cannot reach them. */
  readonly toolAccess: (task: AgentTask, mcpUrl: string | undefined) => ToolAccess | undefined;
}

/** The agents of agents.json that other servers run. */
export class RemoteAgents {
  readonly #deps: RemoteAgentsDeps;
  readonly #references: References;
  readonly #agents = new Map<string, Agent>();
  readonly #clients: RemoteClient[] = [];
  readonly #breakers = new Map<string, Breaker>();

  /** @throws UnusableConfiguration for a row that cannot be used */
  constructor(deps: RemoteAgentsDeps, options: ReferenceOptions) {
    this.#deps = deps;
    this.#references = new References(options, 'agents');
    for (const agent of deps.agents.all) if (isRemote(agent)) this.#agents.set(agent.name, this.#create(agent));
  }

  /** Returns an agent; undefined for one that this deployment runs itself. */
  get(name: string): Agent | undefined {
    return this.#agents.get(name);
  }

  /** Closes all connections. */
  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
  }

  #create(agent: RemoteAgent): Agent {
    this.#references.checkUrl(agent.url, agent.name);
    const headers = this.#references.values(agent.headers, agent.name);
    const { clock, tracing } = this.#deps;
    const breaker = this.#breakerOf(new URL(agent.url).origin);
    const client = new RemoteClient({ clock, tracing, breaker }, { url: agent.url, headers }, agent);
    this.#clients.push(client);
    const run = this.#runnerOf(agent);
    return (task, context) => this.#execute(agent, run, { task, context, client });
  }

  /** Returns a function that executes a turn of the agent. */
  #runnerOf(agent: RemoteAgent): (turn: Turn) => Promise<TurnAnswer> {
    const { clock, tools } = this.#deps;
    switch (agent.kind) {
      case 'http': {
        const run = httpRunner(this.#references.secret(agent.secret, `${agent.name}: secret`), clock);
        return (turn) => run({ ...turn, settings: agent });
      }
      case 'agui': {
        const run = aguiRunner({ clock, tools });
        return (turn) => run({ ...turn, settings: agent });
      }
      case 'responses': {
        const run = responsesRunner(clock);
        return (turn) => run({ ...turn, settings: agent });
      }
      case 'a2a': {
        const run = a2aRunner(clock);
        return (turn) => run({ ...turn, settings: agent });
      }
    }
  }

  /** Agents at one origin are one server. */
  #breakerOf(server: string): Breaker {
    const existing = this.#breakers.get(server);
    if (existing) return existing;
    const { clock, metrics, logger } = this.#deps;
    const breaker = new Breaker(
      { clock },
      {
        isFault: (error) => error instanceof RemoteFault && error.isOfServer,
        // A cancelled run says nothing about the server.
        saysNothing: (error) => !(error instanceof RemoteFault),
        onChange: (state) => {
          metrics.agentBreaker.set({ server }, BREAKER_STATE_NUMBERS[state]);
          logger.warn({ server, state }, 'circuit breaker of an agent server changed state');
        },
      },
    );
    metrics.agentBreaker.set({ server }, BREAKER_STATE_NUMBERS.closed);
    this.#breakers.set(server, breaker);
    return breaker;
  }

  async #execute(
    agent: RemoteAgent,
    run: (turn: Turn) => Promise<TurnAnswer>,
    {
      task,
      context,
      client,
    }: { readonly task: AgentTask; readonly context: AgentContext; readonly client: RemoteClient },
  ): Promise<RunAnswer> {
    // Its turn costs money, and has effects that cannot be undone.
    if (task.degraded) throw new TollgateError('AUTH_SERVICE_UNAVAILABLE', { text: FREE_ONLY });
    const { metrics, logger, tracing } = this.#deps;
    const ignored = new IgnoredEvents();
    const logged = { run_id: task.runId, user: userHash(task.userId), agent: agent.name };
    try {
      const history = await this.#history(agent, task);
      const toolAccess = agent.tools.length === 0 ? undefined : this.#deps.toolAccess(task, agent.mcp_url);
      const turn = { task, context, settings: agent, client, history, toolAccess };
      const answer = await tracing.span(`chat ${agent.name}`, { kind: 'client' }, (span) => {
        span.set({ 'gen_ai.operation.name': 'chat', 'tollgate.agent.kind': agent.kind });
        return run({ ...turn, budget: new Budget(agent), ignored: (type) => ignored.count(type) });
      });
      await context.remote.flush();
      const { text, tokens, finish } = answer;
      if (text.length > agent.text_characters) throw new RemoteFault('too_large', 'more text than text_characters');
      metrics.agentTurns.inc({ agent: agent.name, result: 'ok' });
      const final_response = text.trim();
      const answered = {
        final_response,
        summary: summaryOf(final_response),
        ...(finish ? { finish_reason: finish } : {}),
      };
      return { ...answered, billing: this.#billing(agent, context, 'success', tokens) };
    } catch (thrown) {
      if (!(thrown instanceof RemoteFault)) throw thrown;
      metrics.agentTurns.inc({ agent: agent.name, result: thrown.reason });
      const { status, agentCode } = thrown.details;
      logger.warn(
        { ...logged, fault: thrown.message, reason: thrown.reason, status, code: agentCode },
        'agent turn failed',
      );
      // What the agent said before stays in the log.
      await context.remote.flush();
      const { tokens } = thrown.details;
      if (tokens === undefined) throw thrown.public;
      throw new BilledFailure(thrown.public, this.#billing(agent, context, 'error', tokens));
    } finally {
      if (ignored.total > 0) {
        metrics.agentIgnoredEvents.inc({ agent: agent.name }, ignored.total);
        logger.info({ ...logged, ignored: ignored.total, types: ignored.types }, 'events of an agent ignored');
      }
    }
  }

  #billing(
    agent: RemoteAgent,
    { remote }: AgentContext,
    status: 'success' | 'error',
    tokens: ReportedTokens | undefined,
  ) {
    const price = this.#deps.agents.price(`agent:${agent.name}`);
    const { input, output } = tokens ?? { input: 0, output: 0 };
    const units = agent.units + Math.ceil((input * price.input + output * price.output) / 1_000);
    return remote.billing({ status, units, tokens });
  }

  async #history(agent: RemoteAgent, { userId, threadId, runId }: AgentTask): Promise<ThreadMessage[]> {
    if (agent.history_messages === 0) return [];
    // More than is sent, because later runs may have added messages.
    const page = { threadId, before: undefined, limit: 2 * agent.history_messages };
    const read = () => this.#deps.threads.history(userId, page);
    const { messages } = await retryDuringOutage(this.#deps.clock, OUTAGE_RETRY_MS, read);
    return threadMessages(messages, runId, agent);
  }
}

/** Counts the events of one turn that have no meaning for Tollgate, by a bounded number of types. */
class IgnoredEvents {
  total = 0;
  readonly #types = new Set<string>();

  get types(): readonly string[] {
    return [...this.#types];
  }

  count(type: string): void {
    this.total += 1;
    if (this.#types.size < MAX_TYPES) this.#types.add(type.slice(0, 64));
  }
}
