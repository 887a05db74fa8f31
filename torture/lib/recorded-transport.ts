import type { OpenTransport } from '../../packages/client/src/main.ts';
import type { Recorder } from './history.ts';

/**
 * Wraps a transport of the client package, and records each durable event as it arrives: the client itself hides
 * repetitions and gaps from its user.
 */
export function recordedTransport(
  inner: OpenTransport,
  { recorder, user, client }: { readonly recorder: Recorder; readonly user: string; readonly client: string },
): OpenTransport {
  let connections = 0;
  return (options, handlers) => {
    connections += 1;
    const connection = `${client}#${connections}`;
    let epoch = '';
    const opened = (after: number) => recorder.add({ t: 'opened', connection, user, after, epoch });
    const transport = inner(options, {
      closed: (reason) => handlers.closed(reason),
      message: (type, fields) => {
        if (type === 'connection_established') {
          epoch = String(fields.epoch);
          const { position } = options;
          opened(position && position.epoch === epoch ? position.after : Number(fields.seq));
        } else if (type === 'resume_failed') {
          // The client requests another position at once.
          epoch = String(fields.epoch);
          recorder.add({ t: 'lost', connection, user, reason: String(fields.reason) });
        } else if (typeof fields.seq === 'number' && typeof fields.event_id === 'string') {
          const { seq, event_id: eventId, user_id: eventUser } = fields;
          recorder.add({ t: 'event', connection, user, seq, eventId, eventUser: String(eventUser) });
        }
        handlers.message(type, fields);
      },
    });
    return {
      send: (type, fields) => {
        // From here on the connection continues at another position.
        if (type === 'resume') opened(Number(fields.after));
        transport.send(type, fields);
      },
      close: () => transport.close(),
    };
  };
}
