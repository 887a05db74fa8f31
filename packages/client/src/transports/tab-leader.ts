import type { Position } from '../stream-position.ts';
import type { CloseReason, Fields, OpenTransport, Transport, TransportOptions } from './transport.ts';

/** A message of the gateway for one tab, or for all tabs. */
export interface TabMessage {
  readonly to: string | undefined;
  readonly type: string;
  readonly fields: Fields;
}

interface LeaderHandlers {
  message(message: TabMessage): void;
  closed(reason: CloseReason): void;
}

/** Requests that wait for their answers, of all tabs. Each client has at most 1,000. */
const MAX_REQUESTS = 10_000;
/** Further tabs wait for a connection until their clients retry. */
const MAX_TABS = 100;

/** Holds the connection of several tabs: sends each answer to the tab that asked, and everything else to all. */
export class TabLeader {
  readonly #id: string;
  readonly #handlers: LeaderHandlers;
  readonly #transport: Transport;
  #welcome: Fields | undefined;
  /** The highest `seq` that the tabs have received. */
  #head = 0;
  /** Tabs that attached before the welcome. */
  readonly #waiting = new Map<string, Position | undefined>();
  readonly #requests = new Map<string, string>();
  /** Tabs whose missed events are replayed, one after the other. The first entry is in progress. */
  #resumes: { readonly tab: string; readonly position: Position | undefined }[] = [];

  /** @param id id of the leader's own tab */
  constructor(id: string, open: OpenTransport, options: TransportOptions, handlers: LeaderHandlers) {
    this.#id = id;
    this.#handlers = handlers;
    // The handshake of this connection resumes for the leader's tab.
    if (options.position) this.#resumes.push({ tab: id, position: undefined });
    this.#transport = open(options, {
      message: (type, fields) => this.#received(type, fields),
      closed: (reason) => handlers.closed(reason),
    });
  }

  attach(tab: string, position: Position | undefined): void {
    if (this.#welcome) this.#admit(tab, position, this.#welcome);
    else if (this.#waiting.size < MAX_TABS) this.#waiting.set(tab, position);
  }

  send(tab: string, type: string, fields: Fields): void {
    if (type === 'resume') return this.#resume(tab, fields as unknown as Position);
    if (typeof fields.request_id === 'string') {
      this.#requests.set(fields.request_id, tab);
      const [oldest] = this.#requests.keys();
      if (this.#requests.size > MAX_REQUESTS && oldest !== undefined) this.#requests.delete(oldest);
    }
    this.#transport.send(type, fields);
  }

  close(): void {
    this.#transport.close();
  }

  #received(type: string, fields: Fields): void {
    if (type === 'connection_established' && fields.authenticated === true) return this.#welcomed(fields);
    if (typeof fields.seq === 'number') {
      this.#head = Math.max(this.#head, fields.seq);
      return this.#emit(undefined, type, fields);
    }
    if (type === 'resumed' || type === 'resume_failed') return this.#resumed(type, fields);
    const requestId = String(fields.request_id);
    this.#emit(this.#requests.get(requestId), type, fields);
    this.#requests.delete(requestId);
  }

  #welcomed(fields: Fields): void {
    this.#welcome = fields;
    this.#head = Number(fields.seq);
    this.#emit(this.#id, 'connection_established', fields);
    for (const [tab, position] of this.#waiting) this.#admit(tab, position, fields);
    this.#waiting.clear();
  }

  /** A tab that attaches later gets the welcome as if it had connected now. */
  #admit(tab: string, position: Position | undefined, welcome: Fields): void {
    this.#emit(tab, 'connection_established', { ...welcome, seq: this.#head });
    if (position) this.#resume(tab, position);
  }

  #resume(tab: string, position: Position): void {
    const { epoch } = this.#welcome ?? {};
    if (position.epoch === epoch && position.after === this.#head && this.#resumes.length === 0) {
      return this.#emit(tab, 'resumed', { from: position.after, to: position.after, epoch });
    }
    this.#resumes = [...this.#resumes.filter((other, index) => index === 0 || other.tab !== tab), { tab, position }];
    if (this.#resumes.length === 1) this.#transport.send('resume', { ...position });
  }

  #resumed(type: string, fields: Fields): void {
    const [ended, ...others] = this.#resumes;
    this.#resumes = others;
    if (ended) this.#emit(ended.tab, type, fields);
    const position = this.#resumes[0]?.position;
    if (position && others.length > 0) this.#transport.send('resume', { ...position });
  }

  #emit(to: string | undefined, type: string, fields: Fields): void {
    this.#handlers.message({ to, type, fields });
  }
}
