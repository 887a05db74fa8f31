import { beforeEach, expect, it } from '@jest/globals';
import { hourOf } from '../../src/usage/hours.ts';
import { archiveFixture, useArchiveServers } from '../support/archive.ts';
import { erasureFixture } from '../support/erasure.ts';
import { describeWith, POSTGRES } from '../support/programs.ts';
import { HOUR } from '../support/usage.ts';

const USER = 'user_erased@example.test';

describeWith(POSTGRES, 'the archive of an erased user', () => {
  const servers = useArchiveServers();
  let fixture: Awaited<ReturnType<typeof archiveFixture>>;
  let erasing: ReturnType<typeof erasureFixture>;

  beforeEach(async () => {
    fixture = await archiveFixture(servers);
    erasing = erasureFixture({ ...fixture.usage, archive: fixture.archive });
    await fixture.usage.execute({ userId: USER }, { userId: 'user_b' }, { userId: USER, units: 7 });
    await fixture.usage.ingestAll();
  });

  const erase = async () => {
    const { erasure_id } = await erasing.erasures.begin(USER, 'test', Date.now());
    await erasing.finish(erasure_id, async () => {
      await fixture.usage.ingestAll();
      await fixture.archiveAll();
    });
    return erasure_id;
  };
  const verify = () => fixture.verifier.verify([HOUR, hourOf(Date.now())]);
  const texts = async () => {
    const tables = ['usage_records', 'usage_records_superseded', 'usage_windows', 'usage_hours', 'usage_archive'];
    const rows = await Promise.all(
      tables.map((table) => fixture.sql<{ t: string }>(`SELECT t::text AS t FROM ${table} t`)),
    );
    return rows.flat().map(({ t }) => t);
  };

  it('holds the same bytes as the ledger, and verifies with it', async () => {
    await fixture.archiveAll();
    const others = async () => (await fixture.rows()).filter(({ record }) => record.includes('"user_b"'));
    const before = await others();
    const pseudonym = await erase();
    expect(await verify()).toMatchObject({ ok: true, archive: 'compared', archived_records: 4 });
    const rows = await fixture.rows();
    expect(rows.map(({ record }) => record)).toEqual((await fixture.usage.records()).map((one) => JSON.stringify(one)));
    expect(before).toHaveLength(1);
    expect(await others()).toEqual(before);
    expect(rows.filter(({ record }) => record.includes(pseudonym))).toHaveLength(3);
    expect((await texts()).filter((text) => text.includes('user_erased'))).toEqual([]);
  });

  it('is copied when records were erased before it had them', async () => {
    const { erasure_id } = await erasing.erasures.begin(USER, 'test', Date.now());
    await erasing.finish(erasure_id, fixture.usage.ingestAll);
    await fixture.archiveAll();
    expect(await verify()).toMatchObject({ ok: true, archived_records: 4 });
    expect((await texts()).filter((text) => text.includes('user_erased'))).toEqual([]);
  });

  it('has records erased that the ledger has trimmed, and that a loss superseded', async () => {
    await fixture.archiveAll();
    await fixture.sql(
      `INSERT INTO usage_records_superseded (hash, sequence, id, period, units, record, archived_at, settled_at)
       SELECT 'lost', 9, 'lost', period, units, record, now(), now() FROM usage_records WHERE sequence = 1`,
    );
    const { usage } = fixture;
    const before = await usage.records();
    await usage.windows.closeDue(Date.parse('2100-01-01T00:00:00Z'));
    expect(await usage.consumers.trim(-1)).toBe(3);
    const pseudonym = await erase();
    const rows = await fixture.rows();
    expect(rows.map(({ record }) => JSON.parse(record).user_id)).toEqual(
      before.map(({ user_id }) => (user_id === USER ? pseudonym : user_id)).concat(pseudonym),
    );
    expect((await texts()).filter((text) => text.includes('user_erased'))).toEqual([]);
    expect(await verify()).toMatchObject({ ok: true });
  });

  it('gives erased records back to a Redis that has lost them, as they are', async () => {
    await fixture.archiveAll();
    await erase();
    const before = await fixture.usage.records();
    const { redis, keys } = fixture.usage;
    await redis.unlink(keys.ledger, keys.ledgerState, keys.erasedRecords, keys.openWindows);
    await redis.unlink(
      keys.window(HOUR),
      keys.tally(HOUR),
      keys.window(hourOf(Date.now())),
      keys.tally(hourOf(Date.now())),
    );
    await fixture.archiveAll();
    expect(await fixture.usage.records()).toEqual(before);
    expect(await verify()).toMatchObject({ ok: true });
  });
});
