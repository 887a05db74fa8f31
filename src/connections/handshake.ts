import type { TollgateError } from '../protocol/errors.ts';

/** The last event that the client received, as stated in its handshake. */
export interface ResumePoint {
  readonly after: number;
  readonly epoch: string;
}

export interface HandshakeOptions {
  /** Whether a handshake without a credential is rejected; otherwise the client may authenticate by message. */
  readonly identityRequired: boolean;
  readonly resumeFrom: ResumePoint | undefined;
  /** Settles when the transport can send replayed events; undefined if it can at once. */
  readonly writable?: Promise<void>;
}

/** A connection before authentication, identified by its client address. */
export interface PendingConnection {
  /**
   * Verifies a credential. A rejected one counts as a failed authentication of the client address.
   * @param find returns the identity, undefined when there was no credential
   * @throws TollgateError the error of `find`, or AUTH_RATE_LIMITED instead when the address is blocked
   */
  authenticate<Found>(find: () => Promise<Found>): Promise<Found>;
  /** Called when the connection closes before authentication. */
  recordRefusal(error: TollgateError): void;
}
