import { expect, it } from '@jest/globals';
import { partitionOf } from '../../src/redis/keys.ts';
import { LedgerGate } from '../../src/usage/recovery/ledger-server.ts';
import { resubmit } from '../../src/usage/recovery/resubmitted-records.ts';
import { archiveFixture, useArchiveServers } from '../support/archive.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { olderState } from '../support/older-state.ts';
import { describeWith, POSTGRES } from '../support/programs.ts';
import { EVERYTHING_PASSED, HOUR, NEXT_HOUR, type UsageFixture } from '../support/usage.ts';

const HOURS = [HOUR, NEXT_HOUR];

describeWith(POSTGRES, 'a ledger that Redis has lost the end of', () => {
  const servers = useArchiveServers();

  const fixture = () => archiveFixture(servers);

  /** Three archived records, and a way back to the state with only the first. */
  async function lostTwo() {
    const all = await fixture();
    const { usage, archiveAll } = all;
    await usage.execute({});
    await usage.ingestAll();
    await archiveAll();
    const goBack = await olderState(servers.redis, usage.keys.prefix);
    await usage.execute({ userId: 'user_b', units: 7 });
    await usage.ingestAll();
    await usage.execute({ hour: NEXT_HOUR });
    await usage.ingestAll();
    await archiveAll();
    const before = await usage.records();
    return { ...all, before, goBack };
  }

  const idsOf = async (usage: UsageFixture) => (await usage.records()).map(({ id }) => id);
  const unitsOf = async (usage: UsageFixture) => {
    const [total] = await usage.tallies.query({ hours: HOURS, groupBy: [] });
    return total?.units;
  };

  it('restores the same records, hashes, tallies and windows, under the cursors of the consumers', async () => {
    const { usage, archiveAll, verifier, before, goBack } = await lostTwo();
    const [, second, third] = before;
    await goBack();
    expect(await usage.records()).toHaveLength(1);
    expect(await archiveAll()).toMatchObject([
      { repaired: { restored: 2, resubmitted: 0 } },
      { archived: 0, more: false },
    ]);
    expect(await usage.records()).toEqual(before);
    expect(await unitsOf(usage)).toBe(17);
    expect(await verifier.verify(HOURS)).toMatchObject({ ok: true, checked_records: 3, archived_records: 3 });
    const page = await usage.ledger.read({ after: { sequence: 2, hash: second?.hash ?? '' }, limit: 10 });
    expect(page).toMatchObject({ gapDetected: false, records: [{ id: third?.id }] });
    // A later record chains to the restored ones.
    await usage.execute({});
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    expect(await archiveAll()).toMatchObject([{ archived: 1 }]);
    expect(await verifier.verify(HOURS)).toMatchObject({ ok: true, checked_records: 4, archived_records: 4 });
  });

  it('has its closed windows again byte for byte, with what came late in the revision that it was in', async () => {
    const { usage, archiveAll, verifier } = await fixture();
    await usage.execute({});
    await usage.ingestAll();
    await archiveAll();
    const goBack = await olderState(servers.redis, usage.keys.prefix);
    await usage.execute({ units: 7 });
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await usage.execute({ units: 11 }, { hour: NEXT_HOUR });
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await archiveAll();
    const before = await usage.windows.read(HOURS);
    expect(before.map(({ closed }) => closed.length)).toEqual([2, 1]);
    await goBack();
    await archiveAll();
    expect(JSON.stringify(await usage.windows.read(HOURS))).toBe(JSON.stringify(before));
    expect(await servers.redis.zcard(usage.keys.openWindows)).toBe(0);
    expect(await verifier.verify(HOURS)).toMatchObject({ ok: true, checked_records: 4, checked_windows: 2 });
  });

  it('closes a window again unchanged if only its closing was lost, before further ingestion', async () => {
    const { usage, archiveAll } = await fixture();
    await usage.execute({}, {});
    await usage.ingestAll();
    const goBack = await olderState(servers.redis, usage.keys.prefix);
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await archiveAll();
    const before = await usage.windows.read([HOUR]);
    await goBack();
    expect((await usage.windows.read([HOUR]))[0]?.open).toBeDefined();
    await archiveAll();
    expect(await usage.windows.read([HOUR])).toEqual(before);
    await usage.execute({});
    await usage.ingestAll();
    expect((await usage.windows.read([HOUR]))[0]).toMatchObject({ closed: before[0]?.closed, open: { revision: 2 } });
  });

  it('has, after it has grown otherwise, the windows of its own history in the archive too', async () => {
    const { usage, archiveAll, goBack, sql } = await lostTwo();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await archiveAll();
    await goBack();
    await usage.execute({ units: 1, hour: NEXT_HOUR });
    await usage.ingestAll();
    await archiveAll();
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await archiveAll();
    const archived = await sql<{ document: object }>('SELECT document FROM usage_windows ORDER BY period, revision');
    const closed = (await usage.windows.read(HOURS)).flatMap((view) => view.closed);
    expect(archived.map(({ document }) => document)).toEqual(closed);
    expect(await sql('SELECT FROM usage_windows_superseded')).toHaveLength(2);
    expect(await sql('SELECT FROM usage_hours WHERE last_sequence > closed_to')).toHaveLength(0);
  });

  it('is not charged twice for what was put back and still waits in an outbox, or is executed again', async () => {
    const { usage, archiveAll, verifier, before, goBack } = await lostTwo();
    await goBack();
    // Redis lost the ingestion, but not the record in its outbox.
    const { sequence: _, hash: __, ...waiting } = before[1] ?? {};
    await servers.redis.xadd(usage.keys.outbox(partitionOf('user_b')), '*', 'r', JSON.stringify(waiting));
    await archiveAll();
    await usage.ingestAll();
    // The call was lost too: its caller or the sweep repeats it under the same id with another outcome.
    const swept = JSON.stringify({ ...waiting, units: 0, status: 'error' });
    await servers.redis.xadd(usage.keys.outbox(partitionOf('user_b')), '*', 'r', swept);
    await usage.ingestAll();
    expect(await usage.records()).toEqual(before);
    expect(await servers.redis.xlen(usage.keys.outbox(partitionOf('user_b')))).toBe(0);
    expect(await verifier.verify(HOURS)).toMatchObject({ ok: true, checked_records: 3 });
  });

  it('that has grown otherwise since keeps what it has, and gets what is missing again, under the same ids', async () => {
    const { usage, archiveAll, verifier, before, goBack, rows, sql } = await lostTwo();
    const [, second, third] = before;
    await goBack();
    // The second record survived in its outbox. Then a new record is executed, and both are ingested before the
    // comparison.
    const { sequence: _, hash: __, ...waiting } = second ?? {};
    await servers.redis.xadd(usage.keys.outbox(partitionOf('user_b')), '*', 'r', JSON.stringify(waiting));
    const [fresh] = await usage.execute({ units: 1, hour: NEXT_HOUR });
    await usage.ingestAll();
    expect(await verifier.verify(HOURS)).toMatchObject({ problem: { kind: 'archive', sequence: 2 } });

    expect(await archiveAll()).toMatchObject([
      { repaired: { restored: 0, resubmitted: 0 }, more: true },
      { archived: 2, repaired: { resubmitted: 1 }, more: false },
    ]);
    await usage.ingestAll();
    await archiveAll();
    const ids = await idsOf(usage);
    expect(ids.toSorted()).toEqual([before[0]?.id, second?.id, third?.id, fresh?.id].toSorted());
    expect(ids.at(-1)).toBe(third?.id);
    expect(await unitsOf(usage)).toBe(18);
    expect(await verifier.verify(HOURS)).toMatchObject({ ok: true, checked_records: 4, archived_records: 4 });
    // A consumer that has read the lost history receives a gap, and drops duplicates by id.
    const after = { sequence: 3, hash: third?.hash ?? '' };
    expect(await usage.ledger.read({ after, limit: 10 })).toMatchObject({ gapDetected: true });
    // Nothing is deleted: superseded records are kept and resolved.
    expect((await rows()).map(({ id }) => id)).toEqual(ids);
    const superseded = await sql<{ hash: string; settled: boolean }>(
      'SELECT hash, settled_at IS NOT NULL AS settled FROM usage_records_superseded ORDER BY sequence',
    );
    expect(superseded).toEqual([second, third].map((record) => ({ hash: record?.hash, settled: true })));
  });

  it('puts records restored late into the next revision of a closed window, and keeps the closed one', async () => {
    const { usage, archiveAll, verifier, before, goBack } = await lostTwo();
    await goBack();
    await usage.execute({ units: 1 });
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    const closed = (await usage.windows.read([HOUR]))[0]?.closed;
    await archiveAll();
    await usage.ingestAll();
    const view = (await usage.windows.read([HOUR]))[0];
    expect(view?.closed).toEqual(closed);
    expect(view?.open).toMatchObject({ revision: 2, record_count: 1, totals: { units: before[1]?.units } });
    expect(await verifier.verify(HOURS)).toMatchObject({ ok: true });
  });

  it('says which lost records came back with other units: a call that the sweep had ended first', async () => {
    const { usage, archiveAll, before, goBack } = await lostTwo();
    await goBack();
    const { sequence: _, hash: __, ...lost } = before[1] ?? {};
    const swept = JSON.stringify({ ...lost, units: 0, status: 'error' });
    await servers.redis.xadd(usage.keys.outbox(partitionOf('user_b')), '*', 'r', swept);
    await usage.ingestAll();
    expect(await archiveAll()).toMatchObject([
      { more: true },
      { archived: 1, repaired: { resubmitted: 1, chargedOtherwise: [before[1]?.id] } },
    ]);
  });

  it('continues an interrupted repair, and appends no record twice', async () => {
    const { usage, archive, archiveAll, before, goBack, sql } = await lostTwo();
    await goBack();
    await usage.execute({ units: 1 });
    await usage.ingestAll();
    await archiveAll();
    // The archiver died before its commit, and a node had the record too.
    const { sequence: _, hash: __, ...lost } = before[1] as (typeof before)[number];
    await resubmit(usage, [lost], { source: 'node', since: 0 });
    await sql('UPDATE usage_records_superseded SET returned_at = NULL');
    await archiveAll();
    await usage.ingestAll();
    const ids = await idsOf(usage);
    expect(ids.filter((id) => id === lost.id)).toHaveLength(1);
    expect(new Set(ids).size).toBe(4);
    await archiveAll();
    expect((await archive.head()).sequence).toBe(4);
  });

  it('is not repaired where both have nothing in common: that is for an operator', async () => {
    const { usage, archiver, goBack, sql, rows } = await lostTwo();
    await goBack();
    await sql("UPDATE usage_archive SET base_sequence = 1, base_hash = 'another'");
    await expect(archiver.step()).rejects.toMatchObject({ name: 'ArchiveDisagrees' });
    expect(await rows()).toHaveLength(3);
    expect(await usage.records()).toHaveLength(1);
  });

  it('is not given anything by the archive while its Redis is the one that agreed with it', async () => {
    const { usage, archiver, server, goBack } = await lostTwo();
    await goBack();
    await server.agree((await server.identify()).serverId);
    await expect(archiver.step()).rejects.toMatchObject({ name: 'ArchiveDisagrees', sequence: 3 });
    expect(await usage.records()).toHaveLength(1);
  });

  it('is not given what was tampered with in the archive', async () => {
    const { usage, archiver, goBack, sql } = await lostTwo();
    await goBack();
    await sql(`UPDATE usage_records SET record = replace(record::text, '"units":7', '"units":700')::json`);
    await expect(archiver.step()).rejects.toMatchObject({ name: 'ArchiveDisagrees', sequence: 2 });
    expect(await usage.records()).toHaveLength(1);
  });

  it('is not ingested into until the archive comparison is done or has timed out', async () => {
    const { usage, archiveAll, server, goBack } = await lostTwo();
    const clock = new ManualClock();
    const gate = new LedgerGate({ server, clock }, { timeoutMs: 15_000 });
    expect(await gate.isOpen()).toBe(true);
    await goBack();
    expect(await gate.isOpen()).toBe(false);
    clock.advance(14_999);
    expect(await gate.isOpen()).toBe(false);
    await archiveAll();
    expect(await gate.isOpen()).toBe(true);
    await servers.redis.hset(usage.keys.ledgerState, 'agreed', 'the Redis before');
    expect(await gate.isOpen()).toBe(false);
    clock.advance(15_000);
    expect(await gate.isOpen()).toBe(true);
  });
});
