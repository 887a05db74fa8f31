import { hostname } from 'node:os';
import { Accounts } from '../accounts/accounts.ts';
import { InvalidationReader } from '../accounts/invalidation-reader.ts';
import { Revocations } from '../accounts/revocations.ts';
import type { Permissions } from '../catalogue/permissions.ts';
import type { Plans } from '../catalogue/plans.ts';
import { ConnectionRegistry } from '../cluster/connection-registry.ts';
import { NodeRegistry } from '../cluster/node-registry.ts';
import type { Config } from '../config.ts';
import type { ConnectionDeps } from '../connections/connection.ts';
import { Dispatcher } from '../connections/dispatcher.ts';
import { createHandlers } from '../connections/handlers.ts';
import { Hub } from '../connections/hub.ts';
import { InvalidationHandler } from '../connections/invalidation-handler.ts';
import { connectionLimits } from '../connections/limits.ts';
import { LiveAttachments } from '../connections/live-attachments.ts';
import { Welcome } from '../connections/welcome.ts';
import { LiveTail, type TailListener } from '../events/live-tail.ts';
import type { UserLogWriter } from '../events/user-log-writer.ts';
import { Sampler } from '../figures/sampler.ts';
import { SeriesStore } from '../figures/series-store.ts';
import { ChatSocket, type ChatSocketDeps } from '../frontends/ai-sdk/chat-socket.ts';
import { VERSION } from '../lib/version.ts';
import { MessageLimiter } from '../limits/message-limiter.ts';
import type { Quotas } from '../limits/quotas.ts';
import { AcceptedRuns } from '../runs/accepted-runs.ts';
import { RetriedRunQueue } from '../runs/retried-run-queue.ts';
import { RunAdmission } from '../runs/run-admission.ts';
import { RunClaims } from '../runs/run-claims.ts';
import { RunInputs } from '../runs/run-inputs.ts';
import { SWEEP_MARGIN_MS } from '../runs/run-lifetimes.ts';
import { Runs } from '../runs/runs.ts';
import type { AcceptedRun } from '../runs/stored-run.ts';
import { StreamRunQueue } from '../runs/stream-run-queue.ts';
import type { Threads } from '../threads/threads.ts';
import { depthOf } from '../tools/built-in/health-tools.ts';
import { ToolAccess } from '../tools/tool-access.ts';
import type { ToolsPort } from '../tools/tool-call.ts';
import type { AcknowledgedRecords } from '../usage/recovery/acknowledged-records.ts';
import type { Authentication } from './authentication.ts';
import { composeEventLog } from './event-log.ts';
import { composeMcp, type Mcp } from './mcp.ts';
import type { GatewayServices } from './services.ts';
import { composeTools } from './tools.ts';

/** What the transports and the HTTP routes of a node use. */
export interface Connections {
  /** What each connection uses. */
  readonly deps: ConnectionDeps & Pick<Authentication, 'authenticator'>;
  readonly hub: Hub;
  readonly registry: ConnectionRegistry;
  readonly nodes: NodeRegistry;
  readonly log: UserLogWriter;
  readonly acknowledgedRecords: AcknowledgedRecords;
  readonly messageLimiter: MessageLimiter;
  readonly plans: Plans;
  readonly accounts: Accounts;
  readonly revocations: Revocations;
  readonly invalidations: InvalidationReader;
  readonly mcp: Mcp;
  readonly runs: Runs;
  readonly inputs: RunInputs;
  readonly threads: Threads;
  readonly tools: ToolsPort;
  readonly quotas: Quotas;
  readonly permissions: Permissions;
  readonly runQueue: StreamRunQueue;
}

/** Composes what connections need: limits, leases, event delivery, message handlers. Starts to follow invalidations. */
export async function composeConnections(
  config: Config,
  services: GatewayServices,
  authentication: Authentication,
): Promise<Connections> {
  const { logger, tracing, clock, closers, nodeId, metrics, keys, redis, subscriber, catalogues, refusals } = services;
  const { authenticator, tokenSessions, tokenEvents } = authentication;
  const { plans } = catalogues;
  const onKillRequested = canBeKilled(config) ? killThisProcess : undefined;
  const nodes = new NodeRegistry({ ...services, onKillRequested }, nodeId);
  const rate = { perMinute: config.MESSAGE_RATE_PER_MINUTE };
  const messageLimiter = new MessageLimiter({ redis, keys, plans, nodes, clock, logger }, rate);
  closers.add('message limiter', () => messageLimiter.close());

  const { eventLog, log, acknowledgedRecords } = await composeEventLog(services, config);
  const { runs, inputs, runQueue, acceptedRuns } = await composeRuns(config, { ...services, log });
  const onEntry: TailListener['onEntry'] = (entry) => acceptedRuns.onEntry(entry);
  const liveTail = new LiveTail({ redis: subscriber, keys, clock, logger, onEntry });
  await liveTail.attend(keys.nodeChannels(nodeId));
  const leaseMs = config.CONNECTION_LEASE_SECONDS * 1000;
  const caps = { leaseMs, maxConnectionsPerUser: config.MAX_CONNECTIONS_PER_USER };
  const registry = new ConnectionRegistry({ redis, keys, plans }, caps);
  const hub = new Hub({ registry, clock, metrics, logger }, { leaseMs });
  closers.add('hub', () => hub.stop());
  closers.add('nodes', () => nodes.stop());
  const figures = startSampler(services);
  const about = { role: 'gateway', version: VERSION, host: hostname() } as const;
  await nodes.start(() => ({ ...about, connections: hub.size, live: figures.live }));
  const followed = await followInvalidations(services, authentication, registry);
  const { accounts, revocations, invalidations, liveAttachments } = followed;

  const queueDepth = () => depthOf(runQueue);
  const composed = composeTools({ ...services, log, queueDepth }, config);
  const { threads, permissions, quotas, service } = composed;
  closers.add('tool calls', () => service.close());
  const tools = new ToolAccess({ service, permissions, quotas, tools: catalogues.tools });
  const mcp = composeMcp(config, services, { tools, permissions });
  const handlers = createHandlers({ threads, tools, runs, inputs, clock });
  const limits = connectionLimits(config);
  const deps = {
    authenticator,
    tokenSessions,
    tokenEvents,
    registry,
    revocations,
    liveAttachments,
    liveTail,
    eventLog,
    plans,
    dispatcher: new Dispatcher({ handlers, messageLimiter, metrics, refusals, logger, tracing }),
    createRpcDispatcher: dispatchersOf({ mcp, runs, inputs, limits }),
    welcome: new Welcome({ plans, permissions, messageLimiter, clock, nodeId }, limits),
    hub,
    limits,
    clock,
    logger,
    metrics,
    refusals,
    tracing,
    nodeId,
  };
  return {
    deps,
    hub,
    registry,
    nodes,
    log,
    acknowledgedRecords,
    messageLimiter,
    plans,
    accounts,
    revocations,
    invalidations,
    mcp,
    runs,
    inputs,
    threads,
    tools,
    quotas,
    permissions,
    runQueue,
  };
}

/** Starts to read and store the figures of this node. */
function startSampler(services: GatewayServices): Sampler {
  const { nodeId, closers } = services;
  const sampler = new Sampler({ ...services, store: new SeriesStore(services) }, nodeId);
  closers.add('figures', () => sampler.stop());
  sampler.start();
  return sampler;
}

/** The handlers of the messages of other protocols, by the format of the connection. */
function dispatchersOf({
  mcp,
  ...chat
}: Omit<ChatSocketDeps, 'sendFrame'> & { readonly mcp: Mcp }): ConnectionDeps['createRpcDispatcher'] {
  return (format, sendFrame) => {
    if (format === 'jsonrpc') return mcp.createDispatcher(sendFrame);
    return format === 'ui_chat' ? new ChatSocket({ ...chat, sendFrame }) : undefined;
  };
}

/** Composes the acceptance of runs: their queue, and the protection of accepted runs against loss. */
async function composeRuns(config: Config, services: GatewayServices & Pick<Connections, 'log'>) {
  const { redis, subscriber, keys, log, agents, catalogues, clock, logger, metrics, tracing, closers } = services;
  const runQueue = new StreamRunQueue({ redis, keys });
  const queue = new RetriedRunQueue({ queue: runQueue, redis, keys, clock });
  closers.add('retried jobs', () => queue.stop());
  queue.start();
  const onAccepted = (run: AcceptedRun) => acceptedRuns.add(run);
  const timeoutMs = config.RUN_TIMEOUT_SECONDS * 1000;
  const { plans } = catalogues;
  const admission = new RunAdmission({ subscriber, keys, clock });
  closers.add('run admission', () => admission.stop());
  await admission.start();
  const runDeps = { redis, keys, agents, plans, queue, clock, tracing, onAccepted, admission };
  const runs = new Runs(runDeps, { timeoutMs });
  const inputs = new RunInputs({ redis, keys, log, queue, clock, metrics });
  const claims = new RunClaims({ redis, keys, agents }, { timeoutMs });
  const acceptedRuns = new AcceptedRuns({ redis, claims, clock, logger }, { endMs: timeoutMs + SWEEP_MARGIN_MS });
  closers.add('accepted runs', () => acceptedRuns.stop());
  acceptedRuns.start();
  return { runs, inputs, runQueue, acceptedRuns };
}

interface FollowedInvalidations extends Pick<Connections, 'accounts' | 'revocations' | 'invalidations'> {
  readonly liveAttachments: LiveAttachments;
}

/** Applies admin actions and revocations to the attachments of this node as soon as they are published. */
async function followInvalidations(
  services: GatewayServices,
  { revocationCache, introspection }: Authentication,
  registry: ConnectionRegistry,
): Promise<FollowedInvalidations> {
  const { redis, subscriber, keys, catalogues, clock, logger, metrics, tracing, closers } = services;
  const liveAttachments = new LiveAttachments({ revoked: revocationCache });
  const accounts = new Accounts(services);
  const revocations = new Revocations(services);
  const listener = new InvalidationHandler({
    revocationCache,
    introspection,
    registry,
    liveAttachments,
    revocations,
    accounts,
    catalogues,
    clock,
    logger,
    metrics,
    tracing,
  });
  closers.add('invalidation handler', () => listener.stop());
  const invalidations = new InvalidationReader({ redis, subscriber, keys, clock, logger, listener });
  closers.add('invalidations', () => invalidations.stop());
  await invalidations.start();
  return { liveAttachments, accounts, revocations, invalidations };
}

/** Whether an administrator can kill a node: where clients are watched as they resume, never in production. */
export function canBeKilled({ ENVIRONMENT: environment }: Pick<Config, 'ENVIRONMENT'>): boolean {
  return environment === 'development' || environment === 'test';
}

function killThisProcess(): void {
  process.kill(process.pid, 'SIGKILL');
}
