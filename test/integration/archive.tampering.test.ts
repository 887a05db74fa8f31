import { expect, it } from '@jest/globals';
import type { LedgerRecord } from '../../src/protocol/usage.ts';
import { chained } from '../../src/usage/ledger/ledger.ts';
import { archiveFixture, useArchiveServers } from '../support/archive.ts';
import { describeWith, POSTGRES } from '../support/programs.ts';
import { EVERYTHING_PASSED, HOUR } from '../support/usage.ts';

describeWith(POSTGRES, 'verify, with an archive that was tampered with', () => {
  const servers = useArchiveServers();

  /** Five records in both, and a sixth in the ledger only. */
  const archived = async () => {
    const all = await archiveFixture(servers);
    const { usage } = all;
    await usage.execute({}, {}, { units: 3 }, {}, {});
    await usage.ingestAll();
    await all.archiveAll();
    await usage.execute({});
    await usage.ingestAll();
    const records = await usage.records();
    const problem = async () => (await all.verifier.verify([HOUR])).problem;
    return { records, problem, ...all };
  };

  it('finds nothing where nothing was touched, and does not miss what is not archived yet', async () => {
    const { verifier } = await archived();
    expect(await verifier.verify([HOUR])).toMatchObject({
      ...{ ok: true, checked_records: 6, archive: 'compared', archived_records: 5 },
    });
  });

  it.each([
    ['the units of the record', `record = replace(record::text, '"units":3', '"units":4')::json`, 'another record'],
    ['the bytes of the record alone', `record = replace(record::text, ':', ': ')::json`, 'another record'],
    ['the units beside it', 'units = 4', 'another units'],
    ['the period beside it', `period = '2026-03-01T11'`, 'another period'],
    ['the id beside it', `id = 'usage_x'`, 'another id'],
    ['the hash beside it', `hash = '${'f'.repeat(64)}'`, 'another hash'],
  ])('names the record of which %s was changed', async (_, change, what) => {
    const { records, problem, sql } = await archived();
    await sql(`UPDATE usage_records SET ${change} WHERE sequence = 3`);
    const named = { kind: 'archive', sequence: 3, record_id: records[2]?.id, what: expect.stringContaining(what) };
    expect(await problem()).toMatchObject(named);
  });

  it('names a record that was removed, and the first of two that were swapped', async () => {
    const { records, problem, sql } = await archived();
    const missing = 'The archive does not have the record.';
    await sql(
      'UPDATE usage_records SET sequence = CASE sequence WHEN 2 THEN 1002 ELSE 1004 END WHERE sequence IN (2, 4)',
    );
    await sql('UPDATE usage_records SET sequence = CASE sequence WHEN 1002 THEN 4 ELSE 2 END WHERE sequence > 1000');
    expect(await problem()).toMatchObject({ kind: 'archive', sequence: 2, record_id: records[1]?.id });
    await sql('DELETE FROM usage_records WHERE sequence = 1');
    expect(await problem()).toMatchObject({ kind: 'archive', sequence: 1, what: missing });
  });

  it('finds rechained units changed in both by the window, and in the ledger alone by the archive', async () => {
    const { usage, records, problem, sql } = await archived();
    let previous = '';
    const forged = records.map(({ hash: _, ...record }) => {
      const link = chained(previous, record.sequence === 3 ? { ...record, units: 1 } : record);
      previous = link.record.hash;
      return link;
    });
    await servers.redis.del(usage.keys.ledger);
    for (const { record, json } of forged)
      await servers.redis.xadd(usage.keys.ledger, `${record.sequence}-0`, 'r', json, 'a', '1');
    await servers.redis.hset(usage.keys.ledgerState, 'hash', previous);
    expect(await problem()).toMatchObject({ kind: 'archive', sequence: 3 });
    for (const { record, json } of forged) {
      const values = [record.sequence, record.units, record.hash, json];
      await sql('UPDATE usage_records SET units = $2, hash = $3, record = $4 WHERE sequence = $1', values);
    }
    expect(await problem()).toMatchObject({ kind: 'window', window: HOUR });
  });

  it('names the window of which a closed revision was changed, in the archive or on both sides of its sum', async () => {
    const { usage, problem, sql, archiveAll, verifier } = await archived();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    await archiveAll();
    expect(await verifier.verify([HOUR])).toMatchObject({ ok: true, archive: 'compared' });
    const change = (from: string, to: string) =>
      `UPDATE usage_windows SET document = replace(document::text, '${from}', '${to}')::json`;
    await sql(change('"record_count":6', '"record_count":5'));
    expect(await problem()).toMatchObject({ kind: 'archive', window: HOUR, sequence: null });
    await sql(change('"record_count":5', '"record_count":6'));
    expect(await problem()).toBeNull();
    // Records contain nothing about the time at which their window was closed.
    const stored = (await servers.redis.hget(usage.keys.window(HOUR), 'r1')) ?? '';
    await servers.redis.hset(usage.keys.window(HOUR), 'r1', stored.replace('2100-01-01', '2099-01-01'));
    expect((await usage.verifier.verify([HOUR])).ok).toBe(true);
    expect(await problem()).toMatchObject({ kind: 'archive', window: HOUR });
  });

  it('finds records that were put behind the end of the ledger', async () => {
    const { records, problem, sql, usage, archiveAll } = await archived();
    await archiveAll();
    const { hash: _, ...last } = records.at(-1) as LedgerRecord;
    const forged = chained(records.at(-1)?.hash ?? '', { ...last, sequence: 7, id: 'usage_forged' });
    await sql('INSERT INTO usage_records (sequence, id, period, units, hash, record) VALUES (7, $1, $2, 5, $3, $4)', [
      ...['usage_forged', HOUR, forged.record.hash, forged.json],
    ]);
    expect(await problem()).toMatchObject({ kind: 'archive', sequence: 7 });
    expect((await usage.verifier.verify([HOUR])).archive).toBe('none');
  });

  it('says that it could not compare while PostgreSQL is away, and checks the rest', async () => {
    const { verifier, sql, usage } = await archived();
    await sql('UPDATE usage_records SET units = 4 WHERE sequence = 3');
    await servers.postgres.kill();
    const away = { archive: 'away', archived_records: 0 };
    expect(await verifier.verify([HOUR])).toMatchObject({ ok: true, checked_records: 6, ...away });
    await servers.redis.xdel(usage.keys.ledger, '2-0');
    expect(await verifier.verify([HOUR])).toMatchObject({ problem: { kind: 'chain', sequence: 2 }, ...away });
    await servers.postgres.start();
  });
});
