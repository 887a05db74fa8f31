import type {
  CloseReason,
  Fields,
  OpenTransport,
  TransportHandlers,
  TransportOptions,
} from '../../packages/client/src/transports/transport.ts';

/** One connection attempt of a client, played by the test in the role of the gateway. */
export class ScriptedConnection {
  readonly options: TransportOptions;
  readonly sent: { readonly type: string; readonly fields: Fields }[] = [];
  closedByClient = false;
  readonly #handlers: TransportHandlers;

  constructor(options: TransportOptions, handlers: TransportHandlers) {
    this.options = options;
    this.#handlers = handlers;
  }

  message(type: string, fields: Fields = {}): void {
    this.#handlers.message(type, fields);
  }

  welcome(fields: Fields = {}): void {
    this.message('connection_established', {
      authenticated: true,
      user_id: 'u1',
      plan: 'pro',
      permissions: [],
      thread_id: 'thread_1',
      epoch: 'e1',
      seq: 0,
      limits: { heartbeat_interval: 30 },
      ...fields,
    });
  }

  close(reason: Partial<CloseReason> = {}): void {
    this.#handlers.closed({
      code: undefined,
      retryable: undefined,
      retryAfterMs: undefined,
      detail: 'test',
      final: false,
      ...reason,
    });
  }

  /** The fields of the last message of a type that the client sent. */
  last(type: string): Fields | undefined {
    return this.sent.findLast((message) => message.type === type)?.fields;
  }
}

/** A transport whose connections are played by the test. */
export class ScriptedTransport {
  readonly connections: ScriptedConnection[] = [];

  readonly open: OpenTransport = (options, handlers) => {
    const connection = new ScriptedConnection(options, handlers);
    this.connections.push(connection);
    return {
      send: (type, fields) => connection.sent.push({ type, fields }),
      close: () => {
        connection.closedByClient = true;
      },
    };
  };

  get current(): ScriptedConnection {
    const current = this.connections.at(-1);
    if (!current) throw new Error('the client has not connected yet');
    return current;
  }
}
