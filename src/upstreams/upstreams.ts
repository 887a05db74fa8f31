import type { ToolDescription, UpstreamTool } from '../catalogue/tool-catalogue.ts';
import type { ToolServer } from '../catalogue/tool-servers.ts';
import { LIST_METHODS } from './rows.ts';
import { Schemas } from './schemas.ts';
import { Upstream, type UpstreamDeps } from './upstream.ts';

/** All upstreams of this process. Each has one connection that all callers share. */
export class Upstreams {
  readonly #deps: Omit<UpstreamDeps, 'schemas'>;
  /** Created with the first server, because most processes have none. */
  #schemas: Schemas | undefined;
  /** In the order of the configuration file. */
  #byName = new Map<string, Upstream>();

  constructor(deps: Omit<UpstreamDeps, 'schemas'>) {
    this.#deps = deps;
  }

  /** In the order of the configuration file. */
  get all(): readonly Upstream[] {
    return [...this.#byName.values()];
  }

  get(server: string): Upstream | undefined {
    return this.#byName.get(server);
  }

  /** Returns the server's description of a tool; undefined while the server does not list the tool. */
  descriptions({ server, tool }: UpstreamTool): ToolDescription | undefined {
    return this.#byName.get(server)?.capabilities.tools.get(tool);
  }

  /** Applies a new server list: connects new and changed servers in the background, closes removed ones. */
  adopt(servers: readonly ToolServer[]): void {
    const before = this.#byName;
    const kept = new Set<Upstream>();
    this.#byName = new Map();
    for (const server of servers) {
      const existing = before.get(server.name);
      const upstream = existing && isSame(existing.server, server) ? existing : this.#open(server);
      kept.add(upstream);
      this.#byName.set(server.name, upstream);
    }
    for (const upstream of before.values()) {
      if (kept.has(upstream)) continue;
      void upstream.close();
      const { name } = upstream.server;
      if (!this.#byName.has(name)) this.#forget(name);
    }
  }

  #forget(server: string): void {
    const { upstreamBreaker, upstreamOmitted } = this.#deps.metrics;
    upstreamBreaker.remove({ server });
    for (const list of LIST_METHODS) upstreamOmitted.remove({ server, list });
  }

  #open(server: ToolServer): Upstream {
    this.#schemas ??= new Schemas();
    return new Upstream(server, { ...this.#deps, schemas: this.#schemas });
  }

  async close(): Promise<void> {
    const all = this.all;
    this.#byName = new Map();
    await Promise.all(all.map((upstream) => upstream.close()));
  }
}

function isSame(one: ToolServer, other: ToolServer): boolean {
  const text = (server: ToolServer) => JSON.stringify({ ...server, tools: [...server.tools] });
  return text(one) === text(other);
}
