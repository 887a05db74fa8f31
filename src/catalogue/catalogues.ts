import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Listeners } from '../lib/listeners.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { CatalogueError, CatalogueFile, type Mistake } from './catalogue-file.ts';
import { Plans, type PlanTable, parsePlans } from './plans.ts';
import { parseTools, ToolCatalogue, type ToolTable, type UpstreamDescriptions } from './tool-catalogue.ts';
import { type ToolServer, type ToolServerContext, withToolServers } from './tool-servers.ts';

/** Where the catalogues are read from. */
export interface CatalogueSources {
  readonly plans: URL;
  readonly tools: URL;
  /** Undefined where there are no upstream servers. */
  readonly servers?: URL | undefined;
}

/**
 * @param folder a folder with plans.json and tools.json; the product's own when undefined
 * @param servers the path of the file that names upstream servers
 */
export function catalogueSources(folder?: string, servers?: string): CatalogueSources {
  const base = folder === undefined ? new URL('../../config/', import.meta.url) : pathToFileURL(join(folder, '/'));
  return {
    plans: new URL('plans.json', base),
    tools: new URL('tools.json', base),
    servers: servers === undefined ? undefined : pathToFileURL(servers),
  };
}

/** Tells the log of each reload, a failed one with everything that is wrong. */
export function logReloads(catalogues: Catalogues, { logger, metrics }: ReloadObservers): void {
  catalogues.onReload((reload) => {
    metrics?.catalogueReloads.inc({ result: reload.reloaded ? 'ok' : 'failed' });
    if (reload.reloaded) logger.info({ version: reload.version }, 'plans and tools were read again');
    else logger.error({ ...reload }, 'plans and tools are not usable; those from before go on');
  });
}

interface ReloadObservers {
  readonly logger: Logger;
  /** Left out where nothing is counted. */
  readonly metrics?: Pick<Metrics, 'catalogueReloads'>;
}

interface Snapshot {
  /** Names the content of the files: nodes of one version decide alike. */
  readonly version: string;
  readonly plans: PlanTable;
  readonly tools: ToolTable;
  readonly servers: readonly ToolServer[];
}

export interface CatalogueOptions extends ToolServerContext {
  /** The tools that this process has executors for; undefined where none is executed. */
  readonly builtInTools?: readonly string[];
  /** What the tools of upstream servers say of themselves; undefined where none is executed. */
  readonly upstreamDescriptions?: UpstreamDescriptions;
}

export type Reload =
  | { readonly reloaded: true; readonly version: string }
  /** The catalogues from before go on. */
  | { readonly reloaded: false; readonly version: string; readonly mistakes: readonly Mistake[] };

/**
 * Plans, tools and upstream servers, read from their files and read again on demand. All change in one assignment, and
 * only when all files are sound: nobody ever sees a plan of one state with a tool of another, or half a file.
 */
export class Catalogues {
  readonly plans = new Plans(() => this.#current.plans);
  readonly tools: ToolCatalogue;
  readonly #sources: CatalogueSources;
  readonly #options: CatalogueOptions;
  readonly #reloads: Listeners<Reload>;
  #current: Snapshot;

  /** @throws CatalogueError with file, line and field of everything that is wrong */
  constructor(sources = catalogueSources(), options: CatalogueOptions = {}) {
    this.#options = options;
    this.#sources = sources;
    this.#current = read(sources, options);
    this.tools = new ToolCatalogue(() => this.#current.tools, options.upstreamDescriptions);
    this.#reloads = new Listeners((error) => {
      throw error;
    });
  }

  get version(): string {
    return this.#current.version;
  }

  get servers(): readonly ToolServer[] {
    return this.#current.servers;
  }

  /** Reads the files again; what is wrong with them is the answer, and changes nothing. */
  reload(): Reload {
    const result = this.#read();
    this.#reloads.emit(result);
    return result;
  }

  /** Told after each reload of this process, failed ones included. @returns removes the listener again */
  onReload(listener: (reload: Reload) => void): () => void {
    return this.#reloads.add(listener);
  }

  #read(): Reload {
    try {
      this.#current = read(this.#sources, this.#options);
      return { reloaded: true, version: this.version };
    } catch (error) {
      if (!(error instanceof CatalogueError)) throw error;
      return { reloaded: false, version: this.version, mistakes: error.mistakes };
    }
  }
}

function read(sources: CatalogueSources, options: CatalogueOptions): Snapshot {
  const files = [sources.tools, sources.plans, ...(sources.servers ? [sources.servers] : [])].map((url) => {
    return new CatalogueFile(url);
  });
  const [toolsFile, plansFile, serversFile] = files as [CatalogueFile, CatalogueFile, CatalogueFile?];
  const own = parseTools(toolsFile, options.builtInTools);
  const { table: tools, servers } = own && serversFile ? withToolServers(serversFile, own, options) : alone(own);
  const names = { tools: new Set(tools?.tools.keys()), permissions: new Set(tools?.permissions.keys()) };
  // Without the tools every name would be unknown: what is wrong with them says enough.
  const plans = tools && parsePlans(plansFile, names);
  if (tools && plans) rejectUnknownPlans(toolsFile, tools, plans);
  const mistakes = files.flatMap((file) => file.mistakes);
  if (mistakes.length > 0 || !tools || !plans) throw new CatalogueError(mistakes);
  const hash = createHash('sha256');
  for (const { text } of files) hash.update(text).update('\0');
  return { version: hash.digest('hex').slice(0, 12), plans, tools, servers };
}

function alone(table: ToolTable | undefined): { table: ToolTable | undefined; servers: readonly ToolServer[] } {
  return { table, servers: [] };
}

function rejectUnknownPlans(file: CatalogueFile, { permissions }: ToolTable, { byName }: PlanTable): void {
  for (const { name, held_by } of permissions.values()) {
    for (const [at, plan] of (held_by?.plans ?? []).entries()) {
      if (!byName.has(plan)) file.mistake(['permissions', name, 'held_by', 'plans', at], `${plan} is no plan`);
    }
  }
}
