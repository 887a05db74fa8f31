import type { OpenTransport } from '../../packages/client/src/main.ts';
import type { Recorder, Timed } from './history.ts';

type Received = Extract<Timed, { readonly t: 'event' }>;

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
    /**
     * A replay that the client has requested on an open connection. Events that the gateway sent before it received
     * the request come first; the replay has them again.
     */
    let replay: { after: number; readonly received: Received[] } | undefined;
    /** Requests for a replay without `resumed`. Each gets its own replay, unless `resume_failed` answers it. */
    let requested = 0;
    let last = 0;
    const record = (event: Received) => {
      last = event.seq;
      recorder.add(event);
    };
    const endReplay = () => {
      if (!replay) return;
      const { after, received } = replay;
      replay = undefined;
      opened(after);
      const begin = received.findLastIndex(({ seq }) => seq === after + 1);
      for (const event of begin < 0 ? [] : received.slice(begin)) record(event);
    };
    const transport = inner(options, {
      closed: (reason) => {
        endReplay();
        handlers.closed(reason);
      },
      message: (type, fields) => {
        if (type === 'connection_established') {
          epoch = String(fields.epoch);
          const { position } = options;
          opened(position && position.epoch === epoch ? position.after : Number(fields.seq));
        } else if (type === 'resume_failed') {
          // The client requests another position at once.
          epoch = String(fields.epoch);
          recorder.add({ t: 'lost', connection, user, reason: String(fields.reason) });
        } else if (type === 'resumed') {
          requested = Math.max(0, requested - 1);
          endReplay();
        } else if (typeof fields.seq === 'number' && typeof fields.event_id === 'string') {
          const { seq, event_id: eventId, user_id: eventUser } = fields;
          const event: Received = { t: 'event', connection, user, seq, eventId, eventUser: String(eventUser) };
          if (requested > 0 && seq <= last) replay ??= { after: seq - 1, received: [] };
          if (replay) replay.received.push(event);
          else record(event);
        }
        handlers.message(type, fields);
      },
    });
    return {
      send: (type, fields) => {
        if (type === 'resume') {
          requested += 1;
          replay = { after: Number(fields.after), received: [] };
        }
        transport.send(type, fields);
      },
      close: () => {
        endReplay();
        transport.close();
      },
    };
  };
}
