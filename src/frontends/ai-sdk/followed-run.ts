import type { LocatedRun } from '../../jobs.ts';
import { TollgateError } from '../../protocol/errors.ts';
import type { ChunkedRun } from './chat-stream.ts';

/** The run that a response follows, from its beginning or after the position `afterSeq`. */
export type FollowedRun = LocatedRun & Pick<ChunkedRun, 'afterSeq'>;

/**
 * The part of a run that a response can follow: all of it, or only its end if the log no longer contains its beginning.
 * The end has the whole answer.
 * @throws TollgateError EVENTS_TRIMMED for a run without beginning that continues, or whose end is no longer in the log
 */
export function followedRun(run: LocatedRun): FollowedRun {
  const { runId, after, oldest, endedAtSeq } = run;
  if (after + 1 >= oldest) return run;
  if (endedAtSeq === undefined || endedAtSeq < oldest) {
    throw new TollgateError('EVENTS_TRIMMED', { fields: { run_id: runId } });
  }
  return { ...run, after: endedAtSeq - 1, afterSeq: endedAtSeq - 1 };
}
