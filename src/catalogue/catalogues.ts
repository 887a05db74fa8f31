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

/** The files of the catalogues. */
export interface CatalogueSources {
  readonly plans: URL;
  readonly tools: URL;
  /** Undefined without tool servers. */
  readonly servers?: URL | undefined;
}

/**
 * @param folder a folder with plans.json and tools.json; default: Tollgate's own files
 * @param servers the path of the file that lists the tool servers
 */
export function catalogueSources(folder?: string, servers?: string): CatalogueSources {
  const base = folder === undefined ? new URL('../../config/', import.meta.url) : pathToFileURL(join(folder, '/'));
  return {
    plans: new URL('plans.json', base),
    tools: new URL('tools.json', base),
    servers: servers === undefined ? undefined : pathToFileURL(servers),
  };
}

/** Logs and counts each reload, a failed one with all mistakes. */
export function logReloads(catalogues: Catalogues, { logger, metrics }: ReloadObservers): void {
  catalogues.onReload((reload) => {
    metrics?.catalogueReloads.inc({ result: reload.reloaded ? 'ok' : 'failed' });
    if (reload.reloaded) logger.info({ version: reload.version }, 'plans and tools reloaded');
    else logger.error({ ...reload }, 'plans and tools are invalid, keeping the previous ones');
  });
}

interface ReloadObservers {
  readonly logger: Logger;
  /** Absent in processes without this metric. */
  readonly metrics?: Pick<Metrics, 'catalogueReloads'>;
}

/** What the files contain. */
export interface CatalogueContents {
  /** Hash of the file contents; nodes with the same version make the same decisions. */
  readonly version: string;
  readonly plans: PlanTable;
  readonly tools: ToolTable;
  readonly servers: readonly ToolServer[];
}

export interface CatalogueOptions extends ToolServerContext {
  /** The tools for which this process has executors; undefined in a process that executes none. */
  readonly builtInTools?: readonly string[];
  /** Descriptions that upstreams report for their tools; undefined in a process that executes none. */
  readonly upstreamDescriptions?: UpstreamDescriptions;
}

export type Reload =
  | { readonly reloaded: true; readonly version: string }
  /** The previous catalogues stay in effect. */
  | { readonly reloaded: false; readonly version: string; readonly mistakes: readonly Mistake[] };

/**
 * The plans, tools and tool servers, read from their files and reloaded on demand. A reload replaces all of them in one
 * assignment, and only if all files are valid. No reader sees a plan of one version with a tool of another.
 */
export class Catalogues {
  readonly plans = new Plans(() => this.#current.plans);
  readonly tools: ToolCatalogue;
  readonly #sources: CatalogueSources;
  readonly #options: CatalogueOptions;
  readonly #reloads: Listeners<Reload>;
  #current: CatalogueContents;

  /** @throws CatalogueError with file, line and field of each mistake */
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

  get contents(): CatalogueContents {
    return this.#current;
  }

  get servers(): readonly ToolServer[] {
    return this.#current.servers;
  }

  /** Reads the files as a reload would, and changes nothing. @returns their contents or their mistakes */
  preview(): CatalogueContents | { readonly mistakes: readonly Mistake[] } {
    try {
      return read(this.#sources, this.#options);
    } catch (error) {
      if (!(error instanceof CatalogueError)) throw error;
      return { mistakes: error.mistakes };
    }
  }

  /** Reloads the files. If they contain mistakes, returns these and changes nothing. */
  reload(): Reload {
    const result = this.#read();
    this.#reloads.emit(result);
    return result;
  }

  /** Adds a listener for each reload of this process, including failed ones. @returns a function that removes it */
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

function read(sources: CatalogueSources, options: CatalogueOptions): CatalogueContents {
  const toolsFile = new CatalogueFile(sources.tools);
  const plansFile = new CatalogueFile(sources.plans);
  const serversFile = sources.servers && new CatalogueFile(sources.servers);
  const files = [toolsFile, plansFile, ...(serversFile ? [serversFile] : [])];
  const own = parseTools(toolsFile, options.builtInTools);
  const { table: tools, servers } = own && serversFile ? withToolServers(serversFile, own, options) : alone(own);
  const names = { tools: new Set(tools?.tools.keys()), permissions: new Set(tools?.permissions.keys()) };
  // Without the tools every name in the plans would be an unknown one, so only the mistakes of the tools are reported.
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
      if (!byName.has(plan)) file.mistake(['permissions', name, 'held_by', 'plans', at], `${plan} is not a plan`);
    }
  }
}
