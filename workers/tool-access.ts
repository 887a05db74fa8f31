import type { RunTokens } from '../src/auth/run-tokens.ts';
import type { AgentCatalogue } from '../src/catalogue/agent-catalogue.ts';
import type { AgentServices } from '../src/compose/agent.ts';
import type { Config } from '../src/config.ts';

const MCP_PATH = 'mcp';

/**
 * Returns the function that gives agents on other servers a token of their run, and the address of the MCP endpoint.
 */
export function toolAccessOf(
  { tokens, agents }: { readonly tokens: RunTokens; readonly agents: AgentCatalogue },
  { PUBLIC_URL: publicUrl }: Pick<Config, 'PUBLIC_URL'>,
): NonNullable<AgentServices['toolAccess']> {
  const own = publicUrl === undefined ? undefined : `${publicUrl.replace(/\/$/, '')}/${MCP_PATH}`;
  return ({ userId, runId, agent, deadlineAt }, mcpUrl = own) => {
    if (mcpUrl === undefined) return undefined;
    const token = tokens.issue({ userId, runId, expiresAt: deadlineAt });
    return { url: mcpUrl, token, expiresAt: deadlineAt, names: agents.get(agent)?.tools ?? [] };
  };
}
