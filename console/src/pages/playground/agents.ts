import { request } from '../../api/http.ts';

interface Agent {
  readonly name: string;
}

/** Agents that the user may run. */
export async function loadAgents(signal: AbortSignal): Promise<readonly Agent[]> {
  const { agents } = await request<{ agents: Readonly<Record<string, unknown>> }>('/v1/copilotkit/info', { signal });
  return Object.keys(agents).map((name) => ({ name }));
}
