import type { TollgateError } from './errors.ts';

/** Receives the refusals of requests whose user is known. */
export interface RefusalSink {
  /** Does not wait, and never throws. */
  refused(userId: string, error: Pick<TollgateError, 'code' | 'message'>): void;
}
