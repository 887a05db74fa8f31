import { Catalogues } from '../../../src/catalogue/catalogues.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { Logger } from '../../../src/lib/logger.ts';
import { Metrics } from '../../../src/lib/metrics.ts';
import { NO_TRACING } from '../../../src/lib/tracing.ts';
import { upstreamExecutor } from '../../../src/tools/upstream-executor.ts';
import type { Upstream } from '../../../src/upstreams/upstream.ts';
import { Upstreams } from '../../../src/upstreams/upstreams.ts';
import { catalogueFiles } from '../catalogues.ts';
import { silentLogger } from '../core.ts';
import { closeAfter } from '../open-resources.ts';
import { until } from '../until.ts';

type Json = Readonly<Record<string, unknown>>;

/** One upstream without the rest of a node, and the calls of users to its tools. */
export interface LoneUpstream {
  readonly upstream: Upstream;
  readonly metrics: Metrics;
  /** Resolves when a tool can be called; without a name, after the first reading. */
  ready(tool?: string): Promise<void>;
  /** Returns the text of the result, or the error. */
  call(tool: string, args?: Json, userId?: string): Promise<unknown>;
}

export const TOOLS = ['good', 'odd', 'third'];

/** Opens the upstream of a row of the file. @param row fields beside the name and the tools */
export function loneUpstream(row: Json, { logger = silentLogger }: { readonly logger?: Logger } = {}): LoneUpstream {
  const tools = Object.fromEntries(TOOLS.map((name) => [name, { permission: 'basic', units: 1 }]));
  const servers = { servers: [{ name: 'remote', tools, ...row }] };
  const catalogues = new Catalogues(catalogueFiles({ servers }), { variable: () => undefined });
  const metrics = new Metrics();
  const upstreams = new Upstreams({ clock: systemClock, logger, metrics, tracing: NO_TRACING });
  closeAfter('test', () => upstreams.close());
  upstreams.adopt(catalogues.servers);
  const [upstream] = upstreams.all;
  if (!upstream) throw new Error('the file has no server');
  return {
    upstream,
    metrics,
    async ready(tool) {
      const { status } = upstream;
      await until(() => (tool ? upstream.capabilities.tools.has(tool) : upstream.status.state === 'ready'), {
        timeoutMs: 20_000,
        label: `${tool ?? 'a reading'} (${JSON.stringify(status)})`,
      });
    },
    async call(tool, args = {}, userId = 'user') {
      const execute = upstreamExecutor(upstreams, { server: 'remote', tool });
      const { signal } = new AbortController();
      const context = { userId, callId: 'call', signal, threadId: 't', caller: {} as never };
      try {
        const { content } = (await execute(args, context)) as { content: readonly { readonly text?: unknown }[] };
        return content[0]?.text;
      } catch (error) {
        return error;
      }
    },
  };
}
