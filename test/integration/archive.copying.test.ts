import { expect, it } from '@jest/globals';
import { ARCHIVE_CONSUMER } from '../../src/usage/archive/archiver.ts';
import { archiveFixture, useArchiveServers } from '../support/archive.ts';
import { describeWith, POSTGRES } from '../support/programs.ts';
import { EVERYTHING_PASSED, NEXT_HOUR, type UsageFixture } from '../support/usage.ts';

/** A negative age, so that a record is old enough as soon as the clock of Redis has moved. */
const NO_AGE = -1_000;

describeWith(POSTGRES, 'the archive of the ledger', () => {
  const servers = useArchiveServers();

  const fixture = () => archiveFixture(servers);
  const stored = async (usage: UsageFixture) => {
    const { sequence } = await usage.ledger.head();
    return (await usage.ledger.range(1, sequence)).map(({ json }) => json);
  };

  it('has the ledger byte for byte, in its order, and goes on where it ended', async () => {
    const { usage, archiver, archiveAll, rows } = await fixture();
    expect(await archiver.step()).toEqual({ archived: 0, repaired: undefined, more: false });
    await usage.execute({}, { userId: 'user_ü "quoted" \\ \u0000', units: 2 }, { tool: 'list_agents' });
    await usage.ingestAll();
    expect(await archiveAll()).toMatchObject([{ archived: 3, more: false }]);
    await usage.execute({ hour: NEXT_HOUR });
    await usage.ingestAll();
    expect(await archiveAll()).toMatchObject([{ archived: 1 }]);
    const copied = await rows();
    expect(copied.map(({ record }) => record)).toEqual(await stored(usage));
    expect(copied.map(({ sequence }) => sequence)).toEqual(['1', '2', '3', '4']);
  });

  it('takes bounded batches, and does a batch that was cut off before its commit again, once', async () => {
    const { usage, archiver, archive, archiveAll, rows } = await fixture();
    await usage.execute(...Array.from({ length: 1_200 }, (_, i) => ({ userId: `user_${i}` })));
    await usage.ingestAll();
    const crash = archive.alone(async (writer) => {
      const records = (await usage.records()).slice(0, 2);
      await writer.add(records.map((record) => ({ sequence: record.sequence, json: JSON.stringify(record), record })));
      throw new Error('crashed');
    });
    await expect(crash).rejects.toThrow('crashed');
    expect(await archiver.step()).toMatchObject({ archived: 1_000, more: true });
    expect(await archiveAll()).toMatchObject([{ archived: 200, more: false }]);
    expect((await rows()).map(({ record }) => record)).toEqual(
      [...(await usage.ledger.range(1, 1_000)), ...(await usage.ledger.range(1_001, 1_200))].map(({ json }) => json),
    );
  });

  it('has one archiver at a time, which the others do not wait for', async () => {
    const { usage, archive, archiver, archiveAll } = await fixture();
    await usage.execute({});
    await usage.ingestAll();
    let go = () => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    let holds = () => {};
    const held = new Promise<void>((resolve) => {
      holds = resolve;
    });
    const holder = archive.alone(async () => {
      holds();
      await gate;
    });
    await held;
    expect(await archiver.step()).toEqual({ archived: 0, repaired: undefined, more: false });
    go();
    await holder;
    expect(await archiveAll()).toMatchObject([{ archived: 1 }]);
  });

  it('is a consumer: nothing is trimmed that it does not have, from before its first record on', async () => {
    const { usage, archiveAll } = await fixture();
    await archiveAll();
    await usage.execute({}, {});
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    const last = (await usage.records()).at(-1);
    await usage.consumers.confirm('erp', 'billing', { sequence: 2, hash: last?.hash ?? '' });
    expect(await usage.consumers.trim(NO_AGE)).toBe(0);
    await archiveAll();
    expect(await usage.consumers.list()).toMatchObject([
      { consumer: 'erp' },
      { consumer: ARCHIVE_CONSUMER, sequence: 2, service: 'tollgate' },
    ]);
    expect(await usage.consumers.trim(NO_AGE)).toBe(2);
  });

  it('begins behind what had been trimmed before there was an archive, and keeps the chain to it', async () => {
    const { usage, archiveAll, archive, rows, verifier } = await fixture();
    await usage.execute({}, {}, {});
    await usage.ingestAll();
    await usage.windows.closeDue(EVERYTHING_PASSED);
    const [, second] = await usage.records();
    await usage.consumers.confirm('erp', 'billing', { sequence: 2, hash: second?.hash ?? '' });
    expect(await usage.consumers.trim(NO_AGE)).toBe(2);
    await archiveAll();
    expect((await rows()).map(({ sequence }) => sequence)).toEqual(['3']);
    expect((await archive.head()).base).toEqual({ sequence: 2, hash: second?.hash });
    expect(await verifier.verify([NEXT_HOUR])).toMatchObject({ ok: true });
  });

  it('stops, and takes nothing further, where the ledger was tampered with', async () => {
    const { usage, archiver, archiveAll, rows } = await fixture();
    await usage.execute({}, {});
    await usage.ingestAll();
    await archiveAll();
    await usage.execute({ units: 5 });
    await usage.ingestAll();
    const [third] = await usage.ledger.range(3, 3);
    await servers.redis.xdel(usage.keys.ledger, '3-0');
    // A stream id cannot be reused, so the ledger is written anew.
    const entries = await servers.redis.xrange(usage.keys.ledger, '-', '+');
    await servers.redis.del(usage.keys.ledger);
    for (const [id, fields] of entries) await servers.redis.xadd(usage.keys.ledger, id, ...fields);
    const forged = third?.json.replace('"units":5', '"units":1') ?? '';
    await servers.redis.xadd(usage.keys.ledger, '3-0', 'r', forged, 'a', '1');
    await expect(archiver.step()).rejects.toMatchObject({ name: 'ArchiveDisagrees', sequence: 3 });
    expect(await rows()).toHaveLength(2);
  });

  it('stops when the same id comes under another sequence: a bill is not charged twice unseen', async () => {
    const { usage, archiver, archiveAll } = await fixture();
    const [record] = await usage.execute({});
    await usage.ingestAll();
    await archiveAll();
    await servers.redis.xadd(usage.keys.outbox(1), '*', 'r', JSON.stringify(record));
    await usage.ingestAll();
    await expect(archiver.step()).rejects.toMatchObject({ name: 'ArchiveDisagrees' });
  });

  it('is away without harm: a step fails, the next one after its return has all', async () => {
    const { usage, archiver, archiveAll, rows } = await fixture();
    await usage.execute({});
    await usage.ingestAll();
    await archiveAll();
    await servers.postgres.kill();
    await usage.execute({}, {});
    await usage.ingestAll();
    await expect(archiver.step()).rejects.toThrow();
    expect(await usage.consumers.list()).toMatchObject([{ sequence: 1 }]);
    await servers.postgres.start();
    expect((await archiveAll()).reduce((sum, { archived }) => sum + archived, 0)).toBe(2);
    expect(await rows()).toHaveLength(3);
  });
});
