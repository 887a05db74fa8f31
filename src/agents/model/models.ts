import type { ModelSettings } from '../../catalogue/model-settings.ts';
import { type EndpointRow, type ModelRow, settingsOf } from '../../catalogue/model-settings.ts';
import { type ReferenceOptions, References } from '../references.ts';
import { Endpoint, type EndpointDeps } from './endpoint.ts';
import type { FaultReason, ModelFault } from './fault.ts';

/** The endpoint of the deployment: `AGENT_MODEL_URL` and its key. */
export interface DefaultEndpoint {
  readonly url: string;
  readonly key: string | undefined;
}

export interface ModelSource {
  /** Returns the row of a model in agents.json; an empty one if there is none. */
  model(name: string): ModelRow;
}

export interface ModelsOptions extends ReferenceOptions {
  readonly endpoint: DefaultEndpoint | undefined;
}

/** How long an endpoint that failed is used only if no other is left. */
const REST_MS = 10_000;
const LONGEST_REST_MS = 60_000;
/** Faults of the endpoint itself. All others can come from one conversation and need not affect the next one. */
const RESTING: ReadonlySet<FaultReason> = new Set([
  'timeout',
  'unreachable',
  'interrupted',
  'unavailable',
  'rate_limited',
  'authentication',
  'payment',
]);

/** One model with its endpoints. */
export interface Model {
  readonly name: string;
  readonly settings: ModelSettings;
  readonly endpoints: readonly Endpoint[];
}

/** The models of the deployment, each with its endpoints in the order in which a step tries them. */
export class Models {
  readonly #deps: EndpointDeps;
  readonly #source: ModelSource;
  readonly #options: ModelsOptions;
  readonly #references: References;
  readonly #models = new Map<string, Model | undefined>();
  readonly #restsUntil = new Map<Endpoint, number>();

  constructor(deps: EndpointDeps, source: ModelSource, options: ModelsOptions) {
    this.#deps = deps;
    this.#source = source;
    this.#options = options;
    this.#references = new References(options, 'models');
  }

  /**
   * Returns a model; undefined if neither its row nor the deployment has an endpoint for it. Agents name the models, so
   * their number is bounded by the file.
   * @throws UnusableConfiguration for a row that cannot be used
   */
  get(name: string): Model | undefined {
    if (!this.#models.has(name)) this.#models.set(name, this.#create(name));
    return this.#models.get(name);
  }

  /**
   * Returns the endpoints in the order in which to try them: the one that replied before, because signatures and caches
   * are its own, then a random one by weight. Those that failed a moment ago come last.
   */
  order({ endpoints }: Model, last: string | undefined): Endpoint[] {
    const drawn = new Map(endpoints.map((one) => [one, drawOf(one.address.weight)]));
    const rank = (one: Endpoint) => [this.#rests(one) ? 1 : 0, one.address.name === last ? 0 : 1, drawn.get(one) ?? 0];
    return endpoints.toSorted((a, b) => compare(rank(a), rank(b)));
  }

  /** Reports the result of a request. */
  ended(endpoint: Endpoint, fault: ModelFault | undefined): void {
    if (!fault) this.#restsUntil.delete(endpoint);
    else if (RESTING.has(fault.reason) || fault.status === 404) {
      const restMs = Math.min(Math.max(fault.retryAfterMs ?? 0, REST_MS), LONGEST_REST_MS);
      this.#restsUntil.set(endpoint, this.#deps.clock.now() + restMs);
    }
  }

  #rests(endpoint: Endpoint): boolean {
    return (this.#restsUntil.get(endpoint) ?? 0) > this.#deps.clock.now();
  }

  #create(name: string): Model | undefined {
    const row = this.#source.model(name);
    const { endpoint } = this.#options;
    const rows: readonly EndpointRow[] = row.endpoints ?? (endpoint ? [{ url: endpoint.url, weight: 1 }] : []);
    if (rows.length === 0) return undefined;
    const endpoints = rows.map((one, at) => {
      const settings = settingsOf(row, one);
      const label = rows.length === 1 ? name : `${name}#${at + 1}`;
      // The key of the deployment is sent to the address of the deployment only.
      const key = row.endpoints ? this.#keyOf(one, label) : endpoint?.key;
      const headers = { ...this.#references.values(settings.headers, label), ...keyHeader(settings, key) };
      const query = this.#references.values(settings.query, label);
      this.#references.checkUrl(one.url, label);
      const address = { name: label, url: one.url, model: one.model ?? name, headers, weight: one.weight };
      return new Endpoint(this.#deps, address, { ...settings, query });
    });
    return { name, settings: settingsOf(row), endpoints };
  }

  #keyOf({ key }: EndpointRow, label: string): string | undefined {
    return key === undefined ? undefined : this.#references.secret(key, `${label}: key`);
  }
}

function keyHeader({ key_header }: ModelSettings, key: string | undefined): Record<string, string> {
  if (key === undefined) return {};
  return { [key_header]: key_header === 'authorization' ? `Bearer ${key}` : key };
}

/** Smaller for a larger weight: the minimum of exponential draws is the draw by weight. */
function drawOf(weight: number): number {
  return weight === 0 ? Number.POSITIVE_INFINITY : -Math.log(1 - Math.random()) / weight;
}

function compare(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((value, index) => value !== b[index]);
  return at < 0 ? 0 : (a[at] ?? 0) < (b[at] ?? 0) ? -1 : 1;
}
