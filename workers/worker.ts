import { type Job, Queue } from 'bullmq';
import { Erasures } from '../src/accounts/erasures.ts';
import { InvalidationReader, type TimedInvalidation } from '../src/accounts/invalidation-reader.ts';
import { Revocations } from '../src/accounts/revocations.ts';
import { UserData } from '../src/accounts/user-data.ts';
import { AuthServiceClient, authServiceOptions } from '../src/auth/client/auth-service-client.ts';
import { RunTokens } from '../src/auth/run-tokens.ts';
import { Refreshers } from '../src/auth/token-refresh/refreshers.ts';
import { TokenSeal } from '../src/auth/token-refresh/token-seal.ts';
import { TokenSessions, tokenLifecycleTimes } from '../src/auth/token-refresh/token-sessions.ts';
import { loadAgentCatalogue } from '../src/catalogue/agent-catalogue.ts';
import { logReloads } from '../src/catalogue/catalogues.ts';
import { composeAgent } from '../src/compose/agent.ts';
import { composeCatalogues } from '../src/compose/catalogues.ts';
import { composeEventLog } from '../src/compose/event-log.ts';
import { composeProviders } from '../src/compose/identity-providers.ts';
import { composeTools } from '../src/compose/tools.ts';
import type { Config } from '../src/config.ts';
import { RecentRefusals } from '../src/figures/recent-refusals.ts';
import { AgentRunJob, QUEUES } from '../src/jobs.ts';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { Closers } from '../src/lib/closers.ts';
import { newId } from '../src/lib/ids.ts';
import { type Logger, userHash } from '../src/lib/logger.ts';
import { type ConnectionRole, connectRedis, disconnectRedis, type Redis } from '../src/redis/client.ts';
import { Keys } from '../src/redis/keys.ts';
import { watchRedis } from '../src/redis/latency.ts';
import { onRestored } from '../src/redis/subscriptions.ts';
import { RetriedRunQueue } from '../src/runs/retried-run-queue.ts';
import { type QueueLoad, reportQueueLoad } from '../src/runs/run-admission.ts';
import { RunClaims } from '../src/runs/run-claims.ts';
import { RunExecutor } from '../src/runs/run-executor.ts';
import { RunInputs } from '../src/runs/run-inputs.ts';
import type { QueuedRun } from '../src/runs/run-queue.ts';
import { Runs } from '../src/runs/runs.ts';
import { StreamRunQueue } from '../src/runs/stream-run-queue.ts';
import { startTelemetry, type Telemetry } from '../src/telemetry/telemetry.ts';
import { depthOf } from '../src/tools/built-in/health-tools.ts';
import { BUILT_IN_TOOLS } from '../src/tools/executors.ts';
import { Consumers } from '../src/usage/ledger/consumers.ts';
import { Ledger } from '../src/usage/ledger/ledger.ts';
import { LedgerWriter } from '../src/usage/ledger/ledger-writer.ts';
import { Windows } from '../src/usage/ledger/windows.ts';
import { LedgerErasure } from '../src/usage/ledger-erasure.ts';
import { LedgerGate, LedgerServer } from '../src/usage/recovery/ledger-server.ts';
import { Tallies } from '../src/usage/reports/tallies.ts';
import { openArchive, startArchiving } from './archive-usage.ts';
import { startFigures } from './figures.ts';
import { queuedTasks, startMaintenance } from './maintenance.ts';
import { startOperations } from './operations.ts';
import { PeriodicTasks } from './periodic-tasks.ts';
import { watchQueue } from './queue-watch.ts';
import { QueueWorkers } from './queue-workers.ts';
import { RunMissing, runAgent, TooManyTakeovers, takeoversWithin } from './run-agent.ts';
import { RunConsumer } from './run-consumer.ts';
import { RunDurations } from './run-durations.ts';
import { abandonRun } from './sweep-runs.ts';
import { maintenanceTasks, periodicTasks } from './tasks.ts';
import { toolAccessOf } from './tool-access.ts';

/**
 * A run whose worker has not renewed it for LOCK_MS is taken over at the next check: within LOCK_MS +
 * TAKEOVER_CHECK_MS, well within the run timeout of 45 s.
 */
const LOCK_MS = 10_000;
const TAKEOVER_CHECK_MS = 5_000;
/** Jobs that ended are not kept. */
const KEEP_NONE = { removeOnComplete: { count: 0 }, removeOnFail: { count: 0 } };

export interface RunningWorker {
  /** Port of the health and metrics server. */
  readonly port: number;
  /** Reloads plans and tools. */
  reload(): void;
  close(): Promise<void>;
}

/**
 * Composition root of a worker: agent runs, ledger, token refreshes, erasures, and the sweep of interrupted runs and
 * calls.
 */
export async function startWorker(
  config: Config,
  options: {
    readonly logger?: Logger;
    readonly clock?: Clock;
    readonly erasureQuietMs?: number;
    /** Stops the process; called if an administrator has requested it. */
    readonly onDrainRequested?: () => void;
  } = {},
): Promise<RunningWorker> {
  const closers = new Closers();
  const workerId = newId('worker');
  const telemetry = await startTelemetry(config, { role: 'worker', instance: workerId, logger: options.logger });
  const { logger } = telemetry;
  closers.add('tracing', () => telemetry.tracing.close());
  const clock = options.clock ?? systemClock;
  try {
    const services = await createServices(config, { ...telemetry, clock, closers });
    const components = await createComponents(config, services);
    const durations = new RunDurations({ clock }, { longestMs: config.RUN_TIMEOUT_SECONDS * 1_000 });
    const report = (load: QueueLoad) => reportQueueLoad(services.redis, services.keys, load);
    const watched = { ...services, durations, report };
    const watch = watchQueue(components.runQueue, watched, { concurrency: config.RUN_CONCURRENCY });
    closers.add('queue watch', watch);
    await followCancellations(services, components.executor);
    followReconnects(services, components.executor);
    // Added after everything that jobs use, so that it is closed before.
    const queueWorkers = new QueueWorkers({ ...services, prefix: services.keys.queues });
    const taskDeps = { ...services, ...components, quietMs: options.erasureQuietMs };
    const [maintenance, queue] = [maintenanceTasks(taskDeps), services.openQueue(QUEUES.maintenance)];
    const tasks = new PeriodicTasks(services, [...periodicTasks(taskDeps), ...queuedTasks(queue, maintenance)]);
    closers.add('runs and periodic tasks', () => Promise.all([queueWorkers.close(), tasks.close()]));
    await startRuns(config, services, { ...components, queueWorkers, durations });
    await startMaintenance({ queueWorkers, queue }, maintenance);
    tasks.start();
    if (components.archive) startArchiving(components.archive, { ...services, ...components });
    await followCatalogues(services);
    const { onDrainRequested } = options;
    const figures = { ...services, onDrainRequested, executing: () => durations.executing };
    closers.add('figures', await startFigures(figures, workerId));
    const operations = await startOperations({ config, ...services });
    closers.add('operations', operations.close);
    logger.info({ port: operations.port }, 'listening');
    return { port: operations.port, reload: () => services.catalogues.reload(), close: () => closers.close() };
  } catch (error) {
    await closers.close().catch((cause) => logger.warn({ err: cause }, 'close after a failed start failed'));
    throw error;
  }
}

type WorkerServices = Awaited<ReturnType<typeof createServices>>;
type WorkerComponents = Awaited<ReturnType<typeof createComponents>>;
type WithQueueWorkers = WorkerComponents & { readonly queueWorkers: QueueWorkers };

/** Creates what all other components use: Redis connections, keys, queues and catalogues. */
async function createServices(config: Config, telemetry: Telemetry & { clock: Clock; closers: Closers }) {
  const { logger, closers } = telemetry;
  // First, so that errors in the catalogues are reported even if Redis is unavailable.
  const { catalogues, upstreams } = composeCatalogues(telemetry, config, BUILT_IN_TOOLS);
  const open = async (name: string, role: ConnectionRole): Promise<Redis> => {
    const connection = await connectRedis(config, role, logger);
    closers.add(name, () => disconnectRedis(connection));
    return connection;
  };
  const keys = new Keys(config.REDIS_KEY_PREFIX);
  const redis = await open('redis', 'commands');
  closers.add('redis watch', watchRedis(redis, telemetry));
  const refusals = new RecentRefusals({ ...telemetry, redis, keys });
  closers.add('refusals', () => refusals.stop());
  refusals.start();
  const subscriber = await open('subscriber', 'subscriber');
  const blocking = await open('blocking redis', 'blocking');
  // Its reads wait for at most a second, less than the command timeout, and must fail while Redis is unavailable.
  const runReader = await open('run reader', 'commands');
  const openQueue = (name: string): Queue => {
    const queue = new Queue(name, { connection: redis, prefix: keys.queues });
    closers.add(`${name} queue`, () => queue.close());
    return queue;
  };
  return { ...telemetry, refusals, catalogues, upstreams, keys, redis, subscriber, blocking, runReader, openQueue };
}

/** Creates the agent with its tools, the ledger, and what erasures and token refreshes need. */
async function createComponents(config: Config, services: WorkerServices) {
  const { logger, tracing, clock, metrics, closers, keys, redis } = services;
  const agents = loadAgentCatalogue(config.CATALOGUE_DIR);
  const limits = { timeoutMs: config.RUN_TIMEOUT_SECONDS * 1000 };
  const { log } = await composeEventLog(services, config);
  const runQueue = new StreamRunQueue({ redis, keys });
  const queue = new RetriedRunQueue({ queue: runQueue, redis, keys, clock });
  closers.add('retried jobs', () => queue.stop());
  queue.start();
  const { plans } = services.catalogues;
  const runs = new Runs({ redis, keys, agents, plans, queue, clock, tracing }, limits);
  const claims = new RunClaims({ redis, keys, agents }, limits);
  const inputs = new RunInputs({ redis, keys, log, queue, clock, metrics });
  const toolServices = { ...services, log, agents, queueDepth: () => depthOf(runQueue) };
  const { service: tools, calls, threads } = composeTools(toolServices, config);
  const access = toolAccessOf({ tokens: new RunTokens(services, config.SERVICE_SECRET), agents }, config);
  const agent = await composeAgent({ ...services, agents, threads, toolAccess: access }, config);
  const executorOptions = { ...limits, inputExpiresMs: config.INPUT_EXPIRES_SECONDS * 1000 };
  const executor = new RunExecutor(
    { log, claims, agents, agent, tools, clock, metrics, logger, tracing },
    executorOptions,
  );
  const seal = new TokenSeal(config.SERVICE_SECRET);
  const tokenSessions = new TokenSessions({ redis, keys, clock, seal }, tokenLifecycleTimes(config));
  const authService = new AuthServiceClient({ clock, metrics, logger, tracing }, authServiceOptions(config));
  closers.add('auth service', () => authService.close());
  const ledger = new Ledger({ redis, keys });
  const windows = new Windows({ redis, keys, ledger });
  const consumers = new Consumers({ redis, keys, ledger, windows });
  const server = new LedgerServer({ redis, keys });
  const gate = config.USAGE_ARCHIVE_URL ? new LedgerGate({ server, clock }) : undefined;
  const billing = { ledger, writer: new LedgerWriter({ redis, keys }), windows, consumers, server, gate };
  const archive = config.USAGE_ARCHIVE_URL ? openArchive(config.USAGE_ARCHIVE_URL, services) : undefined;
  const tallies = new Tallies({ redis, keys });
  const erasing = {
    archive,
    erasures: new Erasures({ redis, keys, tracing }),
    userData: new UserData({ redis, keys }),
    ledgerErasure: new LedgerErasure({ redis, keys, ledger, tallies, archive }),
  };
  const { listed } = composeProviders(config);
  const refreshers = new Refreshers({ clock, metrics, logger, tracing, own: authService }, listed);
  closers.add('refreshers', () => refreshers.close());
  const refreshing = { tokenSessions, refreshers, revocations: new Revocations({ redis, keys, tracing }) };
  const longestMs = agents.longestTimeoutMs(limits.timeoutMs);
  return { log, runs, claims, inputs, calls, runQueue, executor, longestMs, ...billing, ...erasing, ...refreshing };
}

/**
 * Receives cancellations of runs. One that is published while the connection is lost also takes effect at the next
 * append.
 */
async function followCancellations({ subscriber, keys }: WorkerServices, executor: RunExecutor): Promise<void> {
  const channels = new Set(keys.runControls);
  subscriber.on('smessage', (channel: string, runId: string) => {
    if (channels.has(channel)) executor.cancel(runId);
  });
  onRestored(
    subscriber,
    () => channels,
    () => undefined,
  );
  await Promise.all(keys.runControls.map((channel) => subscriber.ssubscribe(channel)));
}

/** Restores the runs of this worker after a reconnect: a promoted or restarted Redis may lack the last of them. */
function followReconnects({ redis, closers }: WorkerServices, executor: RunExecutor): void {
  const onReady = () => void executor.confirmRuns();
  redis.on('ready', onReady);
  closers.add('run confirmation', () => void redis.off('ready', onReady));
}

/** Reloads plans and tools after an invalidation of the catalogues, or if one may have been missed. */
async function followCatalogues(services: WorkerServices): Promise<void> {
  const { catalogues } = services;
  logReloads(catalogues, services);
  const listener = {
    async onInvalidations(page: readonly TimedInvalidation[]) {
      if (page.some(({ invalidation }) => invalidation.kind === 'catalogues')) catalogues.reload();
    },
    reload: async () => void catalogues.reload(),
  };
  const invalidations = new InvalidationReader({ ...services, listener });
  services.closers.add('invalidations', () => invalidations.stop());
  await invalidations.start();
}

/** Executes the runs of the queue, and ends those that failed for good. */
async function startRuns(
  config: Config,
  services: WorkerServices,
  components: WithQueueWorkers & { readonly durations: RunDurations },
): Promise<void> {
  const { logger, tracing, clock, runReader: blocking } = services;
  const { runQueue: queue, durations, queueWorkers } = components;
  const deps = { ...components, clock, tracing };
  const execute = ({ id, job, isTakenOver }: QueuedRun, takeovers: number) =>
    durations.measure(() => runAgent(job, deps, isTakenOver ? { takeovers } : { firstOf: id }));
  const onFailed = async (job: AgentRunJob, error: unknown) => {
    // A message over the limit leaves a job without a run: docs/decisions/0002-one-round-trip.md.
    if (error instanceof RunMissing) return;
    const context = { run_id: job.run_id, user: userHash(job.user_id) };
    logger.error({ ...context, err: error }, 'run job failed');
    await abandonRun(job, 'INTERNAL_ERROR', { ...components, clock, logger }).catch((cause: unknown) => {
      logger.error({ ...context, err: cause }, 'ending the failed run failed, the sweep will end it');
    });
  };
  const consumer = new RunConsumer(
    { queue, blocking, clock, logger, execute, isFinal: (error) => error instanceof TooManyTakeovers, onFailed },
    { concurrency: config.RUN_CONCURRENCY, lockMs: LOCK_MS, takeoverCheckMs: TAKEOVER_CHECK_MS },
  );
  queueWorkers.add(consumer);
  await consumer.start();
  // A gateway of an earlier version adds its runs to BullMQ during a rolling update.
  if ((await services.redis.exists(`${services.keys.queues}:${QUEUES.agentRuns}:meta`)) === 1) {
    const run = ({ data, stalledCounter: takeovers }: Job) =>
      durations.measure(() => runAgent(AgentRunJob.parse(data), deps, { takeovers }));
    const options = { concurrency: config.RUN_CONCURRENCY, lockDuration: LOCK_MS, stalledInterval: TAKEOVER_CHECK_MS };
    const maxStalledCount = takeoversWithin(components.longestMs);
    await queueWorkers.start(QUEUES.agentRuns, run, { ...options, ...KEEP_NONE, maxStalledCount });
  }
}
