import { TollgateError } from '../errors.ts';
import type { Position } from '../stream-position.ts';
import { TabLeader, type TabMessage } from './tab-leader.ts';
import type {
  CloseReason,
  Fields,
  OpenTransport,
  Transport,
  TransportHandlers,
  TransportOptions,
} from './transport.ts';

/** A leader answers at once, so one that needs longer is frozen or hangs. */
const ATTACH_MS = 3_000;

/** A tab may get the lock of a closed leader before the leader's last message. */
const REASON_MS = 50;

/** What a tab sends to the others. `from` is the sender's id. */
type Packet = { readonly from: string } & (
  | { readonly kind: 'attach'; readonly position: Position | undefined }
  /** From the leader: answers `attach`, or announces itself. */
  | { readonly kind: 'leader'; readonly to: string | undefined }
  | { readonly kind: 'send'; readonly type: string; readonly fields: Fields }
  | ({ readonly kind: 'message' } & TabMessage)
  | { readonly kind: 'closed'; readonly reason: CloseReason }
);

type WithoutSender<P> = P extends Packet ? Omit<P, 'from'> : never;

/** Another connection follows at once. */
function again(detail: string): CloseReason {
  return { code: undefined, retryable: true, retryAfterMs: 0, detail, final: false };
}
const CLOSED = again('the tab with the connection is closed');
const TAKEN_OVER = again('another tab has taken the connection over');

interface Channel {
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  postMessage(packet: Packet): void;
  close(): void;
}

interface LockOptions {
  readonly signal?: AbortSignal;
  readonly steal?: boolean;
}

interface Locks {
  request(name: string, options: LockOptions, task: () => Promise<void>): Promise<void>;
}

interface Page {
  readonly navigator?: { readonly locks?: Locks };
  readonly BroadcastChannel?: new (name: string) => Channel;
}

/**
 * Shares one connection among the tabs of a user. A Web Lock elects the leader, which holds the connection and relays
 * its messages; the other tabs take over when it closes. Each tab keeps its own position and drops what it has, so a
 * replay that one of them needs is no duplicate for another. Without Web Locks (an insecure page, a server) each client
 * has a connection of its own.
 * @param user identifies the user among those of this origin. Default: issuer and subject of the JWT
 */
export function sharedTransport(open: OpenTransport, user?: string): OpenTransport {
  return (options, handlers) => {
    const { navigator, BroadcastChannel } = globalThis as unknown as Page;
    if (!navigator?.locks || !BroadcastChannel) return open(options, handlers);
    const name = `tollgate ${options.url} ${user ?? subjectOf(options.token)}`;
    return new SharedLink(navigator.locks, new BroadcastChannel(name), name, open, options, handlers);
  };
}

/** One tab's link to the shared connection. */
class SharedLink implements Transport {
  readonly #id = Math.random().toString(36).slice(2);
  readonly #channel: Channel;
  readonly #open: OpenTransport;
  readonly #options: TransportOptions;
  readonly #handlers: TransportHandlers;
  readonly #requestLock: (options: LockOptions) => void;
  /** Of the request that counts. */
  #lockOptions: LockOptions | undefined;
  readonly #withdrawal = new AbortController();
  #releaseLock: () => void = () => {};
  /** Id of the leader to which this tab is attached. */
  #leaderId: string | undefined;
  /** In the leader's tab. */
  #leader: TabLeader | undefined;
  #attachTimer: ReturnType<typeof setTimeout>;
  #isClosed = false;

  constructor(
    locks: Locks,
    channel: Channel,
    name: string,
    open: OpenTransport,
    options: TransportOptions,
    handlers: TransportHandlers,
  ) {
    this.#channel = channel;
    this.#open = open;
    this.#options = options;
    this.#handlers = handlers;
    channel.onmessage = ({ data }) => this.#receive(data as Packet);
    this.#requestLock = (options) => {
      this.#lockOptions = options;
      const ended = () => {
        if (this.#lockOptions === options) this.#end(TAKEN_OVER);
      };
      void locks.request(name, options, () => this.#lead()).catch(ended);
    };
    this.#requestLock({ signal: this.#withdrawal.signal });
    this.#attachTimer = setTimeout(() => {
      this.#requestLock({ steal: true });
      this.#withdrawal.abort();
    }, ATTACH_MS);
    this.#attach();
  }

  send(type: string, fields: Fields): void {
    if (this.#leader) this.#leader.send(this.#id, type, fields);
    else this.#post({ kind: 'send', type, fields });
  }

  close(): void {
    if (!this.#isClosed) this.#leave(CLOSED);
  }

  #attach(): void {
    this.#post({ kind: 'attach', position: this.#options.position });
  }

  /** Runs while this tab holds the lock. */
  async #lead(): Promise<void> {
    if (this.#isClosed) return;
    clearTimeout(this.#attachTimer);
    const held = new Promise<void>((resolve) => {
      this.#releaseLock = resolve;
    });
    if (this.#leaderId !== undefined) {
      // The leader to which this tab was attached is closed. Unless it has sent a reason, a new link resumes from here.
      setTimeout(() => this.#end(CLOSED), REASON_MS);
      return held;
    }
    this.#leaderId = this.#id;
    try {
      this.#leader = new TabLeader(this.#id, this.#open, this.#options, {
        message: (message) => this.#relay(message),
        closed: (reason) => this.#end(reason),
      });
    } catch (cause) {
      const code = cause instanceof TollgateError ? cause.code : 'CANNOT_CONNECT';
      return this.#end({ ...again(String(cause)), code, retryable: false });
    }
    this.#post({ kind: 'leader', to: undefined });
    return held;
  }

  #relay(message: TabMessage): void {
    if (message.to !== this.#id) this.#post({ kind: 'message', ...message });
    if (message.to === undefined || message.to === this.#id) this.#handlers.message(message.type, message.fields);
  }

  #receive(packet: Packet): void {
    if (this.#isClosed) return;
    if (packet.kind === 'attach' || packet.kind === 'send') {
      if (!this.#leader) return;
      if (packet.kind === 'send') return this.#leader.send(packet.from, packet.type, packet.fields);
      this.#post({ kind: 'leader', to: packet.from });
      return this.#leader.attach(packet.from, packet.position);
    }
    if (packet.kind === 'leader') return this.#meet(packet.from, packet.to);
    if (packet.from !== this.#leaderId) return;
    if (packet.kind === 'closed') return this.#end(packet.reason);
    if (packet.to === undefined || packet.to === this.#id) this.#handlers.message(packet.type, packet.fields);
  }

  #meet(leaderId: string, to: string | undefined): void {
    if (this.#leaderId !== undefined) {
      if (this.#leaderId !== leaderId) this.#end(TAKEN_OVER);
    } else if (to === this.#id) {
      this.#leaderId = leaderId;
      clearTimeout(this.#attachTimer);
    } else if (to === undefined) this.#attach();
  }

  /** Ends the link. The client opens the next one as the reason says. */
  #end(reason: CloseReason): void {
    if (this.#isClosed) return;
    this.#leave(reason);
    this.#handlers.closed(reason);
  }

  #leave(reason: CloseReason): void {
    this.#isClosed = true;
    clearTimeout(this.#attachTimer);
    if (this.#leader) {
      this.#leader.close();
      this.#post({ kind: 'closed', reason });
    }
    this.#channel.close();
    this.#withdrawal.abort();
    this.#releaseLock();
  }

  #post(packet: WithoutSender<Packet>): void {
    this.#channel.postMessage({ from: this.#id, ...packet } as Packet);
  }
}

/** Tabs of different users of one origin must not share a connection. */
function subjectOf(token: string): string {
  try {
    const payload = atob((token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/'));
    const { iss, sub } = JSON.parse(payload) as { readonly iss?: unknown; readonly sub?: unknown };
    if (typeof sub === 'string') return `${iss} ${sub}`;
  } catch {
    // Not a JWT.
  }
  const message = 'The access token names no user. Give the id of the user: { shareTabs: userId }.';
  throw new TollgateError('CANNOT_CONNECT', { message, retryable: false });
}
