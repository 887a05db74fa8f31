import type { Tracing } from '../lib/tracing.ts';
import { toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { Connection, OpenOptions } from './connection.ts';
import { describeSpan } from './connection-context.ts';
import type { Handshake } from './handshake.ts';

/**
 * Runs a handshake in its own trace: authenticates the client, then opens the connection with the identity. Messages
 * that arrive meanwhile wait. A failure is sent to the client and closes the connection. Never rejects.
 * @param identify returns the identity, undefined when the client may authenticate by message
 */
export function acceptConnection(
  { tracing }: { readonly tracing: Tracing },
  { handshake, connection }: { readonly handshake: Handshake; readonly connection: Connection },
  identify: () => Promise<Identity | undefined>,
  options: Omit<OpenOptions, 'trace'>,
): Promise<void> {
  handshake.startDeadline((error) => connection.close(error));
  return tracing.root(`handshake ${connection.endpoint}`, { kind: 'server' }, async (span) => {
    try {
      const identity = await handshake.authenticate(identify);
      const isOpen = await connection.open(identity, { ...options, trace: tracing.traceParent });
      if (isOpen) handshake.count(identity ? 'ok' : 'unauthenticated');
    } catch (thrown) {
      const error = toTollgateError(thrown);
      tracing.failed(error);
      handshake.count(error.code);
      connection.close(error);
    }
    describeSpan(span, connection);
  });
}
