import { createContext } from 'preact';
import { useContext } from 'preact/hooks';

/** Answer of `GET /console/config.json`. */
export interface ConsoleConfig {
  readonly version: string;
  readonly environment: string;
  /** Issuer of the identity provider at which operators sign in. */
  readonly issuer: string;
  readonly client_id: string;
  /** Requested at the authorization endpoint, space-separated. */
  readonly scope: string;
  /** Where browsers reach the issuer; null for what it does not have, or while the gateway cannot reach it. */
  readonly endpoints: {
    readonly authorization: string | null;
    readonly token: string | null;
    readonly revocation: string | null;
    readonly end_session: string | null;
  };
  readonly redirect_path: string;
  readonly post_logout_path: string;
  /** Whether the demo accounts of the reference auth service exist. */
  readonly demo_accounts: boolean;
  /** Addresses of other tools; `traces` has the placeholder `{trace_id}`. */
  readonly links: { readonly prometheus: string | null; readonly traces: string | null };
}

export const ConfigContext = createContext<ConsoleConfig | undefined>(undefined);

export function useConfig(): ConsoleConfig {
  const config = useContext(ConfigContext);
  if (!config) throw new Error('There is no ConfigContext around this component.');
  return config;
}

export async function loadConfig(): Promise<ConsoleConfig> {
  const response = await fetch(`${import.meta.env.BASE_URL}config.json`, { cache: 'no-store' });
  if (!response.ok) throw new Error(`The gateway answered ${response.status} to /console/config.json.`);
  return (await response.json()) as ConsoleConfig;
}
