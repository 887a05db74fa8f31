import { setTimeout as delay } from 'node:timers/promises';
import { composeEventLog } from '../../../src/compose/event-log.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { Closers } from '../../../src/lib/closers.ts';
import { Metrics } from '../../../src/lib/metrics.ts';
import { NO_TRACING } from '../../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis } from '../../../src/redis/client.ts';
import { Keys } from '../../../src/redis/keys.ts';
import { hoursBetween } from '../../../src/usage/hours.ts';
import { Consumers } from '../../../src/usage/ledger/consumers.ts';
import { BEGINNING, Ledger, type LedgerPosition } from '../../../src/usage/ledger/ledger.ts';
import { LedgerWriter } from '../../../src/usage/ledger/ledger-writer.ts';
import { Verifier } from '../../../src/usage/ledger/verifier.ts';
import { Windows } from '../../../src/usage/ledger/windows.ts';
import { LedgerGate, LedgerServer } from '../../../src/usage/recovery/ledger-server.ts';
import { Tallies } from '../../../src/usage/reports/tallies.ts';
import { openArchive, startArchiving } from '../../../workers/archive-usage.ts';
import { ingestUsage } from '../../../workers/ingest-usage.ts';
import { catalogues, planRow, toolRow } from '../catalogues.ts';
import { LOG_BYTES, silentLogger } from '../core.ts';
import { closeAfter } from '../open-resources.ts';
import { anyCaller, toolNode, toolRequest, UNLIMITED } from '../tools.ts';

export interface LossProtection {
  /** Retention of acknowledged records in the process, in seconds; 0 for none. */
  readonly journalSeconds: number;
  readonly archiveUrl: string | undefined;
  readonly waitReplicas: number;
}

const USERS = 40;
/** The ingestion interval of workers. */
const INGEST_EVERY_MS = 500;

/**
 * Starts a process that executes paid calls and one that ingests and archives. Both run in this process with separate
 * connections.
 */
export async function recordingWorkers(redisUrl: string, security: LossProtection) {
  const closers = new Closers();
  closeAfter('test', () => closers.close());
  const open = async () => {
    const connection = await connectRedis(redisUrl, 'commands', silentLogger);
    closers.add('redis', () => disconnectRedis(connection));
    return connection;
  };
  const telemetry = { metrics: new Metrics(), logger: silentLogger, tracing: NO_TRACING };
  const base = { ...telemetry, keys: new Keys('crew'), clock: systemClock, closers };
  const node = { ...base, redis: await open() };
  const { log } = await composeEventLog(node, {
    ...{ REDIS_URL: redisUrl, REDIS_WAIT_REPLICAS: security.waitReplicas, REDIS_WAIT_TIMEOUT_MS: 100 },
    ...{
      USAGE_JOURNAL_SECONDS: security.journalSeconds,
      EVENT_LOG_LENGTH: 100,
      EVENT_LOG_HOURS: 1,
      EVENT_LOG_BYTES: LOG_BYTES,
    },
  });
  const files = catalogues({ tools: [toolRow({ name: 'paid', units: 3 })], plans: { one: planRow() } });
  const executors = { paid: async () => ({ done: true }) };
  const { service } = toolNode({ ...node, log, plans: files.plans }, { catalogues: files, executors });

  const worker = { ...base, redis: await open() };
  const ledger = new Ledger(worker);
  const windows = new Windows({ ...worker, ledger });
  const consumers = new Consumers({ ...worker, ledger, windows });
  const server = new LedgerServer(worker);
  const gate = security.archiveUrl ? new LedgerGate({ server, clock: systemClock }) : undefined;
  const ingestDeps = { ...worker, writer: new LedgerWriter(worker), gate };
  if (security.archiveUrl) {
    const archive = openArchive(security.archiveUrl, worker);
    startArchiving(archive, { ...worker, ledger, server, consumers, windows });
  }

  /** Record ids of answered calls. */
  const acknowledged: string[] = [];
  let running = true;
  const call = async (user: number) => {
    while (running) {
      const request = toolRequest(`user_${user % USERS}`, { tool: 'paid', caller: anyCaller('one') });
      try {
        const { finished } = await service.call(request, UNLIMITED);
        const { usage_record_id: id } = await finished;
        if (id) acknowledged.push(id);
      } catch {
        // Redis was unavailable, so the call did not start.
        await delay(20);
      }
      await delay(2);
    }
  };
  const ingest = async () => {
    while (running) {
      await ingestUsage(ingestDeps).catch(() => undefined);
      await delay(INGEST_EVERY_MS);
    }
  };
  const tasks = [ingest(), ...Array.from({ length: 16 }, (_, user) => call(user))];

  return {
    acknowledged,
    metrics: base.metrics,
    /** Number of paid calls so far that replicas confirmed late. */
    unreplicated: async () => (await base.metrics.unreplicatedWrites.get()).values[0]?.value ?? 0,
    stop: async () => {
      running = false;
      await Promise.all(tasks);
    },
    /** Ingests; returns whether the ledger has everything that was pending. */
    ingestAll: async () => (await ingestUsage(ingestDeps)) !== undefined,
    verify: () => {
      const verifier = new Verifier({ ledger, windows, tallies: new Tallies(worker), clock: systemClock });
      return verifier.verify(hoursBetween(Date.now() - 2 * 3_600_000, Date.now() + 1));
    },
    /** Record ids of the ledger. */
    billed: async () => {
      const ids: string[] = [];
      for (let after: LedgerPosition = BEGINNING; ; ) {
        const page = await ledger.read({ after, limit: 1_000 });
        ids.push(...page.records.map(({ id }) => id));
        if (!page.hasMore) return ids;
        after = page.end;
      }
    },
    isArchived: async () => {
      const [{ sequence }, consumersNow] = await Promise.all([ledger.head(), consumers.list()]);
      return consumersNow.some((one) => one.sequence === sequence);
    },
  };
}
