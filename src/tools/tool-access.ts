import type { Permissions, ToolCaller, ToolDescription } from '../catalogue/permissions.ts';
import type { ToolCatalogue } from '../catalogue/tool-catalogue.ts';
import type { MessageLimit } from '../limits/message-limit.ts';
import type { Quotas, UsageSummary } from '../limits/quotas.ts';
import type { Identity } from '../protocol/identity.ts';
import type { ToolCallRequest, ToolResult, ToolsPort } from './tool-call.ts';
import type { ToolService } from './tool-service.ts';

export interface ToolAccessDeps {
  readonly service: Pick<ToolService, 'call'>;
  readonly permissions: Pick<Permissions, 'describeTools'>;
  readonly quotas: Pick<Quotas, 'summary'>;
  readonly tools: ToolCatalogue;
}

/** The tools for callers outside runs: connections and MCP. */
export class ToolAccess implements ToolsPort {
  readonly #deps: ToolAccessDeps;

  constructor(deps: ToolAccessDeps) {
    this.#deps = deps;
  }

  describe(caller: ToolCaller): readonly ToolDescription[] {
    return this.#deps.permissions.describeTools(caller);
  }

  /** Returns whether a tool server executes the tool, so that its results have the form of MCP. */
  isUpstream(tool: string): boolean {
    return this.#deps.tools.get(tool)?.upstream !== undefined;
  }

  /** Starts a call; `finished` settles with its result. @throws TollgateError for a refusal: see `ToolService.call` */
  call(request: ToolCallRequest, limit: MessageLimit): Promise<{ readonly finished: Promise<ToolResult> }> {
    return this.#deps.service.call(request, limit);
  }

  /** Returns the used and the remaining quota of the caller. @throws TollgateError OVERLOADED */
  usage(identity: Identity): Promise<UsageSummary> {
    return this.#deps.quotas.summary(identity.userId, identity);
  }
}
