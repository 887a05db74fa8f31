import { resolve } from 'node:path';
import { Option } from 'commander';
import { withoutTrailing } from '../../src/lib/text.ts';
import { DEFAULT_STATE_DIR, type DevState, readDevState } from './dev-state.ts';
import { PROJECT_ROOT } from './processes.ts';
import { UserError } from './user-error.ts';

const REQUEST_TIMEOUT_MS = 10_000;
/** The plans of the demo accounts `<plan>@demo.local`. */
export const DEMO_PLANS: readonly string[] = ['free', 'pro', 'enterprise', 'developer'];
export const START_ADVICE = 'Start it first, in another terminal: npm start';

/** The options that select the deployment of a script. */
const DEFAULT_FOLDER = resolve(PROJECT_ROOT, DEFAULT_STATE_DIR);
export const stateDirOption: Option = new Option('--state-dir <dir>', 'folder in which npm start keeps its secrets')
  .env('TOLLGATE_STATE_DIR')
  .default(DEFAULT_FOLDER, DEFAULT_STATE_DIR);
export const urlOption: Option = new Option('--url <url>', 'a gateway (default: the first one that npm start runs)');

/** Returns the option, with a leading space, that a suggested command needs for this folder; empty for the default. */
export function stateDirArgument(stateDir: string): string {
  return resolve(stateDir) === DEFAULT_FOLDER ? '' : ` --state-dir ${stateDir}`;
}

/** Access to a deployment: the one that `npm start` runs on this machine, or the one that the environment names. */
export class DevAccess {
  readonly #state: DevState | undefined;
  readonly #url: string | undefined;

  constructor({ stateDir, url }: { stateDir: string; url?: string | undefined }) {
    this.#state = readDevState(resolve(stateDir));
    this.#url = url;
  }

  /** @throws UserError if no deployment is known */
  get gatewayUrl(): string {
    const url = this.#url ?? this.#state?.balancer_url ?? this.#state?.gateway_urls[0] ?? 'http://127.0.0.1:8000';
    if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
      throw new UserError(`--url must be an http or https URL such as http://127.0.0.1:8000, not "${url}".`);
    }
    return withoutTrailing(url, '/');
  }

  /**
   * Returns the key that signs tokens of a development deployment, and their issuer.
   * @param given a secret that overrides those of the environment and of npm start
   * @throws UserError if no deployment is known
   */
  signing(given: string | undefined): { readonly secret: string; readonly issuer: string } {
    const secret = given ?? this.#known('JWT_SECRET_KEY', this.#state?.jwt_secret);
    const issuer = process.env.JWT_ISSUER || this.#known('AUTH_SERVICE_URL', this.#state?.auth_url);
    return { secret, issuer };
  }

  /** Returns an access token of a plan's demo account. */
  async userToken(plan: string): Promise<string> {
    const password = this.#known('DEMO_PASSWORD', this.#state?.demo_password);
    return this.#token({ grant_type: 'password', username: `${plan}@demo.local`, password }, 'DEMO_PASSWORD');
  }

  /** Returns a service token with `scope`. */
  async serviceToken(clientId: string, scope: string): Promise<string> {
    const secret = this.#known('SERVICE_SECRET', this.#state?.service_secret);
    const grant = { grant_type: 'client_credentials', client_id: clientId, client_secret: secret, scope };
    return this.#token(grant, 'SERVICE_SECRET');
  }

  async #token(grant: Record<string, string>, credential: string): Promise<string> {
    const authUrl = withoutTrailing(this.#known('AUTH_SERVICE_URL', this.#state?.auth_url), '/');
    const response = await request(`${authUrl}/oauth/token`, { method: 'POST', body: new URLSearchParams(grant) });
    const answer: unknown = await response.json().catch(() => undefined);
    if (response.ok && isObject(answer) && typeof answer.access_token === 'string') return answer.access_token;
    const detail = isObject(answer) ? (answer.error_description ?? answer.error) : undefined;
    const reason = detail ?? `HTTP ${response.status}`;
    const isScope = isObject(answer) && answer.error === 'invalid_scope';
    const advice = isScope ? '' : ` Check ${credential}, or start Tollgate again: npm start`;
    throw new UserError(`The auth service at ${authUrl} gave no token (${reason}).${advice}`);
  }

  #known(variable: string, stored: string | undefined): string {
    const value = process.env[variable] || stored;
    if (value === undefined) throw new UserError(`No running deployment found. ${START_ADVICE} (or set ${variable}).`);
    return value;
  }
}

/** Sends a request to a deployment. @throws UserError if the server is unreachable */
async function request(url: string, init: RequestInit = {}): Promise<Response> {
  try {
    return await fetch(url, { ...init, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  } catch (cause) {
    throw new UserError(`Cannot reach ${new URL(url).origin}. ${START_ADVICE}`, { cause });
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
