import type { RunTokens } from '../auth/run-tokens.ts';
import type { AgentCatalogue } from '../catalogue/agent-catalogue.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Runs } from '../runs/runs.ts';

export interface RunCallersDeps {
  readonly tokens: RunTokens;
  readonly runs: Pick<Runs, 'executing'>;
  readonly agents: Pick<AgentCatalogue, 'get'>;
}

/** Authenticates agents on other servers that call tools for their run. */
export class RunCallers {
  readonly #deps: RunCallersDeps;

  constructor(deps: RunCallersDeps) {
    this.#deps = deps;
  }

  /**
   * Returns the identity of the user of a run, bounded to the tools of the agent; undefined for a token of another
   * kind. One round trip.
   * @throws TollgateError VALIDATION_FAILED, TOKEN_EXPIRED; TOKEN_REVOKED after the end of the run; OVERLOADED
   */
  async identify(authorization: string | undefined): Promise<Identity | undefined> {
    const { tokens, runs, agents } = this.#deps;
    const token = tokens.read(authorization);
    if (!token) return undefined;
    const { userId, runId, issuedAt, expiresAt } = token;
    const run = await runs.executing(userId, runId);
    if (!run) throw new TollgateError('TOKEN_REVOKED', { text: 'The run of this token has ended.' });
    const { threadId, requestId, agent, degraded, caller } = run;
    return {
      userId,
      ...caller,
      email: undefined,
      sessionId: undefined,
      tokenId: runId,
      tokenIssuedAt: issuedAt,
      tokenExpiresAt: expiresAt,
      method: 'run',
      run: { runId, threadId, requestId, agent, degraded, tools: agents.get(agent)?.tools ?? [] },
    };
  }
}
