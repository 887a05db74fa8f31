import { signal } from '@preact/signals';
import type { Fields, OpenTransport } from '@tollgate/client';

export interface Frame {
  readonly id: number;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly direction: 'in' | 'out' | 'note';
  readonly type: string;
  readonly fields: Fields;
}

const MAX_FRAMES = 500;
const MASKED = '•••';
/** Fields whose values are credentials. */
const SECRET_FIELDS: ReadonlySet<string> = new Set(['token', 'access_token', 'refresh_token', 'ticket']);

type Link = ReturnType<OpenTransport>;

/** Between the client and its transport: records what passes, without credentials, and can break the connection. */
export class Tap {
  /** The latest frames. */
  readonly frames = signal<readonly Frame[]>([]);
  /** Receives each message of the gateway, also those that the client handles itself. */
  onMessage: (type: string, fields: Fields) => void = () => {};
  #link: Link | undefined;
  #drop: (() => void) | undefined;
  #lastId = 0;

  wrap(open: OpenTransport): OpenTransport {
    return (options, handlers) => {
      let ended = false;
      const { position } = options;
      this.note('connecting', position ? { resume_after: position.after, epoch: position.epoch } : {});
      const link = open(options, {
        message: (type, fields) => {
          if (ended) return;
          this.#record('in', type, fields);
          this.onMessage(type, fields);
          handlers.message(type, fields);
        },
        closed: (reason) => {
          if (ended) return;
          ended = true;
          this.note('closed', { ...reason });
          handlers.closed(reason);
        },
      });
      this.#link = link;
      this.#drop = () => {
        ended = true;
        this.note('dropped', {});
        link.close();
        const detail = 'The connection was dropped in the playground.';
        handlers.closed({ code: undefined, retryable: true, retryAfterMs: undefined, detail, final: false });
      };
      return {
        send: (type, fields) => this.#send(link, type, fields),
        close: () => {
          ended = true;
          link.close();
        },
      };
    };
  }

  /** Sends a message beside those of the client. */
  send(type: string, fields: Fields): void {
    if (this.#link) this.#send(this.#link, type, fields);
  }

  /** Ends the connection as a lost network does: the client reconnects and resumes. */
  drop(): void {
    this.#drop?.();
  }

  note(type: string, fields: Fields): void {
    this.#record('note', type, fields);
  }

  #send(link: Link, type: string, fields: Fields): void {
    this.#record('out', type, fields);
    link.send(type, fields);
  }

  #record(direction: Frame['direction'], type: string, fields: Fields): void {
    this.#lastId += 1;
    const frame = { id: this.#lastId, at: Date.now(), direction, type, fields: masked(fields) };
    this.frames.value = [...this.frames.value.slice(1 - MAX_FRAMES), frame];
  }
}

export function masked(fields: Fields): Fields {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name, SECRET_FIELDS.has(name) ? MASKED : value]),
  );
}
