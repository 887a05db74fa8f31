import type { TollgateError } from '../protocol/errors.ts';

/** Where the client left off, as it said at the handshake. */
export interface ResumePoint {
  readonly after: number;
  readonly epoch: string;
}

export interface HandshakeOptions {
  /** Whether a handshake without a credential is refused, or may authenticate later. */
  readonly identityRequired: boolean;
  readonly resumeFrom: ResumePoint | undefined;
  /** Settles when the transport can send what is replayed; at once when there is none. */
  readonly writable?: Promise<void>;
}

/** The client as it is known before it has said who it is: by where it comes from. */
export interface PendingConnection {
  /**
   * Looks at a credential. One that is refused counts against where the client comes from.
   * @param find the identity, undefined when there was no credential
   * @throws TollgateError what `find` throws; AUTH_RATE_LIMITED in its place when too many before it were refused
   */
  authenticate<Found>(find: () => Promise<Found>): Promise<Found>;
  /** The connection ended before it had authenticated. */
  recordRefusal(error: TollgateError): void;
}
