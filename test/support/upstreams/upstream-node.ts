import { fileURLToPath } from 'node:url';
import { Catalogues } from '../../../src/catalogue/catalogues.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { UsageRecord } from '../../../src/protocol/usage.ts';
import type { ToolCallRequest, ToolResult } from '../../../src/tools/tool-call.ts';
import type { ToolService } from '../../../src/tools/tool-service.ts';
import { upstreamExecutor } from '../../../src/tools/upstream-executor.ts';
import { Upstreams } from '../../../src/upstreams/upstreams.ts';
import { catalogueFiles, planRow } from '../catalogues.ts';
import { type Core, silentLogger } from '../core.ts';
import { closeAfter } from '../open-resources.ts';
import { freshUserId } from '../tokens.ts';
import { anyCaller, toolNode, toolRequest, UNLIMITED } from '../tools.ts';
import { until } from '../until.ts';

type Json = Readonly<Record<string, unknown>>;

/** Far above the timeouts of the servers, so that these end a call. */
const CALL_TIMEOUT_MS = 25_000;
const PROGRAM = fileURLToPath(new URL('program.ts', import.meta.url));

/** Returns the row of a server that runs the program of these tests. */
export function programRow(tools: readonly string[], more: Json = {}): Json {
  const args = ['--disable-warning=ExperimentalWarning', PROGRAM];
  // Not `auto`, which starts a program twice: on a busy machine each start takes seconds.
  const protocol = '2025-11-25';
  return { name: 'program', command: process.execPath, args, protocol, tools: allowed(tools), ...more };
}

export function httpRow(url: string, tools: readonly string[], more: Json = {}): Json {
  return { name: 'remote', url, tools: allowed(tools), ...more };
}

/** Entries of a server's row. The tools are paid, because free ones cannot show that a failed call costs nothing. */
export function allowed(tools: readonly string[]): Json {
  return Object.fromEntries(tools.map((name) => [name, { permission: 'basic', units: 7 }]));
}

export interface UpstreamNode {
  readonly catalogues: Catalogues;
  readonly upstreams: Upstreams;
  readonly service: ToolService;
  /** Resolves when the tool can be called. */
  discovered(tool: string): Promise<void>;
  call(tool: string, args?: Json, more?: Partial<ToolCallRequest>): Promise<ToolResult>;
  /** Records of all calls, oldest first. */
  records(): Promise<UsageRecord[]>;
}

/** Returns the components that execute upstream tools. @param more the caller, and a row of its plan */
export function upstreamNode(
  core: Core,
  servers: readonly Json[],
  variables: Record<string, string> = {},
  { userId = freshUserId(), plan = {} }: { readonly userId?: string; readonly plan?: Json } = {},
): UpstreamNode {
  const upstreams = new Upstreams({ ...core, clock: systemClock, logger: silentLogger });
  const plans = { default: 'one', plans: { one: planRow(plan) } };
  const catalogues = new Catalogues(catalogueFiles({ plans, servers: { servers } }), {
    upstreamDescriptions: (tool) => upstreams.descriptions(tool),
    variable: (name) => variables[name],
  });
  upstreams.adopt(catalogues.servers);
  closeAfter('test', () => upstreams.close());
  const upstream = (tool: { server: string; tool: string }) => upstreamExecutor(upstreams, tool);
  const { service } = toolNode(core, { catalogues, executors: {}, upstream, timeoutMs: CALL_TIMEOUT_MS });
  return {
    catalogues,
    upstreams,
    service,
    async discovered(tool) {
      await until(() => catalogues.tools.get(tool)?.executor === 'upstream', { timeoutMs: 15_000, label: tool });
    },
    async call(tool, args = {}, more = {}) {
      const request = toolRequest(userId, { tool, args, caller: anyCaller('one'), ...more });
      const { finished } = await service.call(request, UNLIMITED);
      return finished;
    },
    async records() {
      const stored = await core.redis.lrange(core.keys.user(userId).recentUsage, 0, -1);
      return stored.map((json) => JSON.parse(json) as UsageRecord).reverse();
    },
  };
}

/** Returns the text of a result's first content. */
export function wordsOf(result: ToolResult): unknown {
  const { content } = (result.success ? result.result : {}) as { content?: readonly { readonly text?: unknown }[] };
  return content?.[0]?.text;
}
