import type { Redis } from 'ioredis';

/** What is asked of a master, whichever client has it. */
type Master = Pick<Redis, 'set' | 'wait'>;

/**
 * Whether `replicas` of the master have what was written to it. It is WAIT that is asked, not INFO: a master takes a
 * replica for online as soon as it has sent the whole data set, while that may still be on its way from the disk to
 * the memory of the replica, which would lose what comes after it if it were promoted then.
 */
export async function areInStep(master: Master, replicas: number): Promise<boolean> {
  // WAIT is about what this connection has written.
  await master.set('in-step', '1');
  return (await master.wait(replicas, 100)) >= replicas;
}
