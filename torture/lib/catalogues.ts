import { planFile, toolFile } from '../../test/support/catalogues.ts';
import { MESSAGE_RATE } from './limits.ts';

/** Calls of the tool `add` per day in the plan `limited`. */
export const ALLOWANCE = 60;
/** Messages per minute in the plan `chatty`. */
export const MESSAGES_PER_MINUTE = 30;
/** Connections in the two plans of the user whose plan changes. */
export const CAPS: Readonly<Record<string, number>> = { small: 2, large: 5 };

const enterprise = planFile.plans.enterprise as { readonly permissions: readonly string[] };
const everything = { ...enterprise, permissions: [...enterprise.permissions, 'approved'] };
const plan = (rank: number, more: object) => ({ ...everything, rank, ...more });

/** The plans of the repository, and those of users whose limits are checked. */
export const PLANS = {
  ...planFile,
  plans: {
    ...planFile.plans,
    enterprise: everything,
    limited: plan(10, { allowances: { add: ALLOWANCE } }),
    chatty: plan(11, { multiplier: MESSAGES_PER_MINUTE / MESSAGE_RATE }),
    small: plan(12, { connections: CAPS.small }),
    large: plan(13, { connections: CAPS.large }),
  },
};

/** An agent may use the tools of `approved` only after the user has approved the call. */
export const PERMISSIONS_AND_TOOLS = {
  ...toolFile,
  permissions: { ...toolFile.permissions, approved: { description: 'Calls that need an approval.', approval: true } },
};

export function toolServers(url: string): object {
  const tools = { add: { permission: 'basic', units: 3 }, guarded: { permission: 'approved', units: 2 } };
  return { servers: [{ name: 'torture', url: `${url}/mcp`, tools }] };
}

/** One agent of each kind. */
export function agents({ http, agUi }: { readonly http: string; readonly agUi: string }): object {
  const description = 'An agent of the round.';
  return {
    default: 'helper',
    agents: [
      { name: 'helper', description, kind: 'built_in', tools: ['list_agents'] },
      { name: 'modelled', description, kind: 'model', tools: ['guarded'] },
      {
        name: 'remote',
        description,
        kind: 'http',
        tools: [],
        url: `${http}/turn`,
        secret: `\${AGENT_SECRET}`,
        units: 2,
      },
      { name: 'agui', description, kind: 'agui', tools: [], url: `${agUi}/`, units: 1 },
    ],
  };
}
