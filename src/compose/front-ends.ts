import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import { registerAgUiRoutes } from '../frontends/ag-ui/ag-ui-routes.ts';
import { Conversations } from '../frontends/ag-ui/conversations.ts';
import { registerCopilotKitRoutes } from '../frontends/ag-ui/copilotkit-routes.ts';
import { registerChatRoutes } from '../frontends/ai-sdk/chat-routes.ts';
import { FrontEndScope } from '../frontends/front-end-scope.ts';
import { registerInputRoutes } from '../frontends/runs/input-routes.ts';
import { registerRunRoutes } from '../frontends/runs/run-routes.ts';
import { RunWaits } from '../frontends/runs/run-waits.ts';
import { registerUserRoutes } from '../frontends/runs/user-routes.ts';
import type { InputWatch } from '../http/app.ts';
import { InFlight } from '../mcp/in-flight.ts';
import type { ConnectionGuard } from '../transports/connection-guard.ts';
import { EventStreams } from '../transports/event-streams.ts';
import type { Origins } from '../transports/origins.ts';
import type { Connections } from './connections.ts';
import type { GatewayServices } from './services.ts';

export interface FrontEndRoutesDeps {
  readonly services: GatewayServices;
  readonly connections: Connections;
  readonly origins: Origins;
  readonly guard: ConnectionGuard;
  readonly watch: InputWatch;
  /** Milliseconds after which clients should try another node; undefined unless this node is draining. */
  readonly drainRetryMs: () => number | undefined;
}

/** The front ends of a node. */
export interface FrontEnds {
  /** Ends the requests that wait for a run, and waits for tool calls. The hub ends the streams. */
  drain(timeoutMs: number): Promise<void>;
}

/** Registers the routes through which front ends other than Tollgate's own clients use a node. */
export function registerFrontEnds(
  app: FastifyInstance,
  { CORS_ORIGINS: allowedOrigins }: Pick<Config, 'CORS_ORIGINS'>,
  { services, connections, ...shared }: FrontEndRoutesDeps,
): FrontEnds {
  const { clock, metrics, refusals } = services;
  const { deps, accounts, plans, messageLimiter, runs, inputs, threads, tools } = connections;
  const { authenticator, limits, liveTail } = deps;
  const streams = new EventStreams(deps);
  const scope = new FrontEndScope({
    ...shared,
    authenticator,
    accounts,
    plans,
    runs,
    streams,
    allowedOrigins,
    limits,
    messageLimiter,
    metrics,
    refusals,
    clock,
  });
  const waits = new RunWaits({ liveTail, clock });
  registerRunRoutes(app, { scope, runs, waits, clock });
  registerInputRoutes(app, { scope, inputs });
  const calls = new InFlight({ name: 'tool calls' });
  registerUserRoutes(app, { scope, tools, threads, limits, calls });
  const conversations = new Conversations({ scope, runs, inputs, threads, agents: services.agents });
  registerAgUiRoutes(app, { scope, conversations });
  registerCopilotKitRoutes(app, { scope, conversations });
  registerChatRoutes(app, { scope, runs, inputs });
  return {
    drain(timeoutMs) {
      waits.drain();
      return calls.drained(clock, timeoutMs);
    },
  };
}
