import type { ToolCatalogue } from '../../catalogue/tool-catalogue.ts';
import type { Logger } from '../../lib/logger.ts';
import type { ClientTool } from '../../protocol/client-tools.ts';
import type { Endpoint } from './endpoint.ts';
import type { ToolDefinition } from './messages.ts';
import { offeredTool } from './tool-schemas.ts';

/** Warnings that are remembered, so that each is logged once. */
const MAX_WARNINGS = 4_096;

/** Logs how the definitions of tools are changed for endpoints: once per endpoint, tool and rule. */
export class SchemaWarnings {
  readonly #logger: Pick<Logger, 'warn'>;
  readonly #logged = new Set<string>();

  constructor(logger: Pick<Logger, 'warn'>) {
    this.#logger = logger;
  }

  warn(endpoint: string, tool: string, change: { readonly rule: string; readonly detail: string }): void {
    const key = JSON.stringify([endpoint, tool, change]);
    if (this.#logged.has(key) || this.#logged.size >= MAX_WARNINGS) return;
    this.#logged.add(key);
    this.#logger.warn({ endpoint, tool, ...change }, 'tool definition adapted to the model endpoint');
  }
}

/** The tools of an agent, as they are offered to its model. */
export class ToolOffers {
  readonly #catalogue: Pick<ToolCatalogue, 'get'>;
  readonly #warnings: SchemaWarnings;
  readonly #names: readonly string[];
  readonly #clientTools: readonly ClientTool[];
  readonly #offered = new Map<Endpoint, readonly ToolDefinition[]>();

  /**
   * @param names names of the tools; those that the catalogue lacks are left out
   * @param clientTools tools of the front end of one run
   */
  constructor(
    catalogue: Pick<ToolCatalogue, 'get'>,
    warnings: SchemaWarnings,
    names: readonly string[],
    clientTools: readonly ClientTool[] = [],
  ) {
    this.#catalogue = catalogue;
    this.#warnings = warnings;
    this.#names = names;
    this.#clientTools = clientTools;
  }

  /** Returns the definitions in the form that the endpoint accepts, the same for all steps of a run. */
  for(endpoint: Endpoint): readonly ToolDefinition[] {
    const known = this.#offered.get(endpoint);
    if (known) return known;
    const definitions = this.#names.flatMap((name) => {
      const tool = this.#catalogue.get(name);
      if (!tool) return [];
      const { definition, changes } = offeredTool(tool, endpoint.settings);
      for (const change of changes) this.#warnings.warn(endpoint.address.name, name, change);
      return definition ? [definition] : [];
    });
    // How these are changed is no matter of the operator, so there is no warning.
    const ofClient = this.#clientTools.flatMap(({ parameters, ...tool }) => {
      return offeredTool({ ...tool, arguments: parameters }, endpoint.settings).definition ?? [];
    });
    const all = [...definitions, ...ofClient];
    this.#offered.set(endpoint, all);
    return all;
  }
}
