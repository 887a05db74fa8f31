import type { Catalogues } from '../../src/catalogue/catalogues.ts';
import { Permissions } from '../../src/catalogue/permissions.ts';
import type { UpstreamTool } from '../../src/catalogue/tool-catalogue.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { Quotas } from '../../src/limits/quotas.ts';
import { CallStore } from '../../src/tools/call-store.ts';
import type { ToolExecutor } from '../../src/tools/tool.ts';
import type { ToolCallRequest } from '../../src/tools/tool-call.ts';
import { ToolService } from '../../src/tools/tool-service.ts';
import { type Core, silentLogger } from './core.ts';

export interface ToolNode {
  readonly service: ToolService;
  readonly calls: CallStore;
  readonly quotas: Quotas;
}

export interface ToolNodeOptions {
  readonly catalogues: Catalogues;
  readonly executors: Readonly<Record<string, ToolExecutor>>;
  readonly clock?: Clock;
  readonly timeoutMs?: number;
  /** Lifetime of a reservation; a call that takes longer counts as interrupted. */
  readonly reservationMs?: number;
  readonly concurrency?: number;
  readonly calls?: CallStore;
  readonly upstream?: (tool: UpstreamTool) => ToolExecutor;
}

/** Returns the components that execute tools, with a catalogue and executors of the test's own. */
export function toolNode(core: Omit<Core, 'eventLog'>, options: ToolNodeOptions): ToolNode {
  const { redis, keys, metrics, tracing, log } = core;
  const { catalogues, executors, clock = systemClock, timeoutMs = 5_000, concurrency = 1_000 } = options;
  const { plans, tools } = catalogues;
  const permissions = new Permissions({ plans, tools }, { environment: 'test' });
  const quotas = new Quotas(
    { redis, keys, plans, tools, permissions, metrics },
    { reservationMs: options.reservationMs ?? timeoutMs + 5_000 },
  );
  const refusals = { refused: () => undefined };
  const calls = options.calls ?? new CallStore({ redis, keys, log });
  const deps = {
    tools,
    permissions,
    quotas,
    calls,
    executors,
    clock,
    metrics,
    tracing,
    refusals,
    logger: silentLogger,
  };
  const upstream = options.upstream ? { upstream: options.upstream } : {};
  return { service: new ToolService({ ...deps, ...upstream }, { timeoutMs, concurrency }), calls, quotas };
}

/** Always within the message limit. */
export const UNLIMITED = { allowed: Promise.resolve(), messages: 1_000_000 };

export const anyCaller = (plan: string) => ({ plan, permissions: [], roles: [], featureFlags: {} });

export function toolRequest(
  userId: string,
  request: Partial<ToolCallRequest> & { readonly tool: string },
): ToolCallRequest {
  return {
    userId,
    caller: anyCaller('pro'),
    degraded: false,
    args: {},
    callId: newId('call'),
    threadId: 'thread_1',
    requestId: null,
    idempotencyKey: null,
    transport: 'websocket',
    ...request,
  };
}
