import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Listeners } from '../lib/listeners.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { CatalogueError, CatalogueFile, type Mistake } from './catalogue-file.ts';
import { Plans, type PlanTable, parsePlans } from './plans.ts';
import { parseTools, ToolCatalogue, type ToolTable } from './tool-catalogue.ts';

/** Where the catalogues are read from. */
export interface CatalogueSources {
  readonly plans: URL;
  readonly tools: URL;
}

/** @param folder a folder with plans.json and tools.json; the product's own when undefined */
export function catalogueSources(folder?: string): CatalogueSources {
  const base = folder === undefined ? new URL('../../config/', import.meta.url) : pathToFileURL(join(folder, '/'));
  return { plans: new URL('plans.json', base), tools: new URL('tools.json', base) };
}

/** Tells the log of each reload, a failed one with everything that is wrong. */
export function logReloads(catalogues: Catalogues, { logger, metrics }: ReloadWitnesses): void {
  catalogues.onReload((reload) => {
    metrics?.catalogueReloads.inc({ result: reload.reloaded ? 'ok' : 'failed' });
    if (reload.reloaded) logger.info({ version: reload.version }, 'plans and tools were read again');
    else logger.error({ ...reload }, 'plans and tools are not usable; those from before go on');
  });
}

interface ReloadWitnesses {
  readonly logger: Logger;
  /** Left out where nothing is counted. */
  readonly metrics?: Pick<Metrics, 'catalogueReloads'>;
}

interface Snapshot {
  /** Names the content of the files: nodes of one version decide alike. */
  readonly version: string;
  readonly plans: PlanTable;
  readonly tools: ToolTable;
}

export type Reload =
  | { readonly reloaded: true; readonly version: string }
  /** The catalogues from before go on. */
  | { readonly reloaded: false; readonly version: string; readonly mistakes: readonly Mistake[] };

/**
 * Plans and tools, read from their files and read again on demand. Both change in one assignment, and only when both
 * files are sound: nobody ever sees a plan of one state with a tool of another, or half a file.
 */
export class Catalogues {
  readonly plans = new Plans(() => this.#current.plans);
  readonly tools = new ToolCatalogue(() => this.#current.tools);
  readonly #sources: CatalogueSources;
  readonly #builtInTools: readonly string[] | undefined;
  readonly #reloads: Listeners<Reload>;
  #current: Snapshot;

  /**
   * @param options.builtInTools the tools that this process has executors for; undefined where none is executed
   * @throws CatalogueError with file, line and field of everything that is wrong
   */
  constructor(sources = catalogueSources(), options: { readonly builtInTools?: readonly string[] } = {}) {
    this.#builtInTools = options.builtInTools;
    this.#sources = sources;
    this.#current = read(sources, options.builtInTools);
    this.#reloads = new Listeners((error) => {
      throw error;
    });
  }

  get version(): string {
    return this.#current.version;
  }

  /** Reads the files again; what is wrong with them is the answer, and changes nothing. */
  reload(): Reload {
    const result = this.#read();
    this.#reloads.tell(result);
    return result;
  }

  /** Told after each reload of this process, failed ones included. @returns removes the listener again */
  onReload(listener: (reload: Reload) => void): () => void {
    return this.#reloads.add(listener);
  }

  #read(): Reload {
    try {
      this.#current = read(this.#sources, this.#builtInTools);
      return { reloaded: true, version: this.version };
    } catch (error) {
      if (!(error instanceof CatalogueError)) throw error;
      return { reloaded: false, version: this.version, mistakes: error.mistakes };
    }
  }
}

function read(sources: CatalogueSources, builtInTools: readonly string[] | undefined): Snapshot {
  const files = { tools: new CatalogueFile(sources.tools), plans: new CatalogueFile(sources.plans) };
  const tools = parseTools(files.tools, builtInTools);
  const names = {
    tools: new Set(tools?.tools.keys()),
    permissions: new Set(tools?.permissions.keys()),
  };
  // Without the tools every name would be unknown: what is wrong with them says enough.
  const plans = tools && parsePlans(files.plans, names);
  if (tools && plans) refuseUnknownPlans(files.tools, tools, plans);
  const mistakes = [...files.tools.mistakes, ...files.plans.mistakes];
  if (mistakes.length > 0 || !tools || !plans) throw new CatalogueError(mistakes);
  const version = createHash('sha256').update(files.tools.text).update('\0').update(files.plans.text).digest('hex');
  return { version: version.slice(0, 12), plans, tools };
}

function refuseUnknownPlans(file: CatalogueFile, { permissions }: ToolTable, { byName }: PlanTable): void {
  for (const { name, held_by } of permissions.values()) {
    for (const [at, plan] of (held_by?.plans ?? []).entries()) {
      if (!byName.has(plan)) file.mistake(['permissions', name, 'held_by', 'plans', at], `${plan} is no plan`);
    }
  }
}
