import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Failure, lossyRedis } from '../support/chaos/lossy-redis.ts';
import { type LossProtection, recordingWorkers } from '../support/chaos/recording-workers.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { describeWith, POSTGRES } from '../support/programs.ts';
import { until } from '../support/until.ts';

/** `npm run faults:archive` sets more, and tests every mode. */
const ROUNDS = Number(process.env.FAULT_LOSSES ?? 1);
const EVERY_MODE = process.env.FAULT_LOSSES !== undefined;
/**
 * Duration of the load before the failure of Redis and after its return; in the long form it exceeds the lag of the
 * archive.
 */
const WORK_MS = EVERY_MODE ? 1_600 : 800;

type Fsync = 'always' | 'everysec';

interface Mode {
  readonly failure: Failure;
  readonly fsync: Fsync;
  readonly wait: 0 | 1;
  readonly journal: boolean;
  readonly archive: boolean;
}

interface Losses {
  acknowledged: number;
  /** Lost records, and those of them that were restored, by source. */
  missing: number;
  fromNode: number;
  fromArchive: number;
  restored: number;
  lost: number;
  /** Calls that were answered before the failure without confirmation by a replica. */
  unreplicated: number;
}

const table: string[] = [];

/** One failure of Redis during paid calls, and the resulting contents of the ledger. */
async function lossesOf({ failure, fsync, wait, journal, archive }: Mode, postgres?: PostgresServer): Promise<Losses> {
  const redis = await lossyRedis(failure, fsync);
  const security: LossProtection = {
    journalSeconds: journal ? 60 : 0,
    archiveUrl: archive ? await postgres?.newSchema() : undefined,
    waitReplicas: wait,
  };
  const workers = await recordingWorkers(redis.url, security);
  await until(() => workers.acknowledged.length > 100, { timeoutMs: 20_000, label: 'some calls' });
  await delay(WORK_MS);
  let unreplicated = Promise.resolve(0);
  const calls = (label: string) => {
    const before = workers.acknowledged.length;
    return until(() => workers.acknowledged.length > before + 20, { timeoutMs: 20_000, label });
  };
  const onKilled = () => {
    unreplicated = workers.unreplicated();
  };
  await redis.fail(onKilled, () => calls('calls during the lag'));
  await calls('calls again');
  await delay(WORK_MS);
  await workers.stop();
  await until(workers.ingestAll, { timeoutMs: 40_000, everyMs: 200, label: 'the last fold' });
  if (archive) await until(workers.isArchived, { timeoutMs: 20_000, everyMs: 200, label: 'the archive' });
  await until(workers.ingestAll, { timeoutMs: 40_000, everyMs: 200, label: 'what came back' });

  const billed = await workers.billed();
  expect(new Set(billed).size).toBe(billed.length);
  expect(await workers.verify()).toMatchObject({ problem: null, checked_records: billed.length });
  const acknowledged = new Set(billed);
  const lost = workers.acknowledged.filter((id) => !acknowledged.has(id)).length;
  const recovered = new Map(
    (await workers.metrics.ledgerRecovered.get()).values.map(({ labels, value }) => [labels.how, value]),
  );
  const [fromNode = 0, fromArchive = 0, restored = 0] = ['from_node', 'from_archive', 'restored'].map((how) =>
    recovered.get(how),
  );
  const missing = lost + fromNode + fromArchive + restored;
  const counted = { missing, fromNode, fromArchive, restored, lost, unreplicated: await unreplicated };
  return { acknowledged: workers.acknowledged.length, ...counted };
}

async function rounds(mode: Mode, postgres?: PostgresServer): Promise<Losses[]> {
  const all: Losses[] = [];
  for (let round = 0; round < ROUNDS; round++) all.push(await lossesOf(mode, postgres));
  const most = (name: keyof Losses) => Math.max(...all.map((losses) => losses[name]));
  const sum = (name: keyof Losses) => all.reduce((total, losses) => total + losses[name], 0);
  const { failure, fsync, wait, journal, archive } = mode;
  const what = [
    failure.includes('fail-over') ? failure : `${failure}, ${fsync}`,
    ...[wait ? `WAIT ${wait}` : '–', journal ? 'yes' : '–', archive ? 'yes' : '–'],
    ...[sum('acknowledged'), sum('missing'), most('missing')],
    ...[sum('restored'), sum('fromNode'), sum('fromArchive'), sum('lost'), most('lost'), sum('unreplicated')],
  ];
  table.push(`| ${what.join(' | ')} |`);
  return all;
}

const lostOf = (all: readonly Losses[]) => all.map(({ lost }) => lost);
const NOTHING = Array.from({ length: ROUNDS }, () => 0);
const PLAIN = { fsync: 'everysec', wait: 0, journal: false, archive: false } as const;
const LIMIT_MS = 60_000 * ROUNDS;

afterAll(() => {
  if (!EVERY_MODE) return;
  const head =
    'failure, appendfsync|WAIT|journal|archive|acknowledged|missing|most in a round|put back|from nodes|from the archive|lost|most in a round|unreplicated';
  process.stdout.write(`${ROUNDS} rounds a line\n| ${head.replaceAll('|', ' | ')} |\n${table.join('\n')}\n`);
});

describe('acknowledged records, when Redis fails under paid calls', () => {
  it(
    'that a promoted replica had not got are lost without journal and archive, and nothing else disagrees',
    async () => {
      for (const { lost } of await rounds({ ...PLAIN, failure: 'lagging fail-over' })) expect(lost).toBeGreaterThan(0);
    },
    LIMIT_MS,
  );

  it(
    'that a promoted replica had not got come back from the processes that had them acknowledged',
    async () => {
      const all = await rounds({ ...PLAIN, failure: 'lagging fail-over', journal: true });
      expect(lostOf(all)).toEqual(NOTHING);
      for (const { fromNode } of all) expect(fromNode).toBeGreaterThan(0);
    },
    LIMIT_MS,
  );
});

describeWith(POSTGRES, 'acknowledged records, with an archive', () => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres();
  }, 60_000);

  it(
    'come back after a fail-over to a replica that lagged, once each, and the books agree',
    async () => {
      const all = await rounds({ ...PLAIN, failure: 'lagging fail-over', journal: true, archive: true }, postgres);
      expect(lostOf(all)).toEqual(NOTHING);
    },
    LIMIT_MS,
  );

  if (!EVERY_MODE) return;

  it(
    'are all there after a SIGKILL with appendfsync always, with nothing to secure them',
    async () => {
      expect(lostOf(await rounds({ ...PLAIN, failure: 'killed', fsync: 'always' }))).toEqual(NOTHING);
    },
    LIMIT_MS,
  );

  const modes: Mode[] = [
    { ...PLAIN, failure: 'killed' },
    { ...PLAIN, failure: 'power cut' },
    { ...PLAIN, failure: 'power cut', archive: true },
    { ...PLAIN, failure: 'power cut', journal: true },
    { ...PLAIN, failure: 'power cut', journal: true, archive: true },
    { ...PLAIN, failure: 'fail-over' },
    { ...PLAIN, failure: 'fail-over', wait: 1 },
    { ...PLAIN, failure: 'lagging fail-over', wait: 1 },
    { ...PLAIN, failure: 'lagging fail-over', archive: true },
    { ...PLAIN, failure: 'lagging fail-over', wait: 1, journal: true, archive: true },
  ];
  it.each(modes)(
    '$failure, $fsync, WAIT $wait, journal $journal, archive $archive: never charged twice',
    async (mode) => {
      const all = await rounds(mode, postgres);
      if (mode.journal) expect(lostOf(all)).toEqual(NOTHING);
      // A record that a replica confirmed is not lost. A record that the archive restores may still have been in an
      // outbox.
      if (mode.wait && !mode.archive)
        for (const { missing, unreplicated } of all) expect(missing).toBeLessThanOrEqual(unreplicated);
    },
    LIMIT_MS,
  );
});
