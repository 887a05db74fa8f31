import type { Redis } from 'ioredis';

/** The used commands of a master, for any client. */
type Master = Pick<Redis, 'set' | 'wait'>;

/**
 * Returns whether `replicas` of the master have its writes. This uses WAIT instead of INFO: a master reports a replica
 * as online once it has sent the whole data set, which the replica may still be loading. If it were promoted then, it
 * would lose later writes.
 */
export async function areInStep(master: Master, replicas: number): Promise<boolean> {
  // WAIT concerns writes of this connection only.
  await master.set('in-step', '1');
  return (await master.wait(replicas, 100)) >= replicas;
}
