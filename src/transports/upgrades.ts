import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { LongTasks } from '../limits/long-tasks.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import { matchEndpoint } from './endpoints.ts';
import { originAllowed, requestUrl } from './handshake-request.ts';
import type { RawWebSockets } from './raw-websocket.ts';
import { refuseUpgrade } from './refusals.ts';
import { SOCKET_IO_PATH, type SocketIo } from './socket-io.ts';
import { checkUpgradeForm } from './upgrade-form.ts';

export interface UpgradeDeps {
  readonly guard: Pick<ConnectionGuard, 'addressOf' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'run'>;
  readonly raw: RawWebSockets;
  readonly socketIo: SocketIo;
  readonly allowedOrigins: readonly string[];
  /** How long clients should wait before they try another node; undefined while this one takes connections. */
  readonly drainingForMs: () => number | undefined;
}

/**
 * Listens for the HTTP upgrades of a server: path, draining, origin and form are settled here, in plain HTTP, before any
 * transport sees the socket.
 */
export function listenForUpgrades(server: Server, deps: UpgradeDeps): void {
  /** The answer to the last plain request on each socket. */
  const answers = new WeakMap<Duplex, ServerResponse>();
  server.on('request', (request, response) => answers.set(request.socket, response));
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // A peer that resets the connection during the handshake is no event worth a crash.
    socket.on('error', () => socket.destroy());
    const earlier = answers.get(socket);
    if (earlier && !earlier.writableFinished) return refusePipelined(socket, earlier);
    const task = { surface: 'upgrade', address: () => deps.guard.addressOf(request) } as const;
    deps.longTasks.run(task, () => {
      try {
        route(deps, request, socket, head);
      } catch (thrown) {
        const error = toTollgateError(thrown);
        // A page of a foreign origin could choose the path as well.
        if (originAllowed(request.headers.origin, deps.allowedOrigins)) deps.guard.refused(request, error);
        refuseUpgrade(socket, error);
      }
    });
  });
}

/**
 * Node hands out an upgrade while an earlier request on the same connection is still being answered: that answer would be
 * written into the WebSocket. Answers have to keep the order of the requests (RFC 9112 section 9.3.2).
 */
function refusePipelined(socket: Duplex, earlier: ServerResponse): void {
  const text = 'An upgrade cannot follow a request that has not been answered yet.';
  earlier.once('finish', () => refuseUpgrade(socket, new TollgateError('FORMAT_ERROR', { text })));
}

/**
 * @throws TollgateError ENDPOINT_NOT_FOUND, SERVER_DRAINING, ORIGIN_NOT_ALLOWED, FORMAT_ERROR, UPGRADE_REQUIRED,
 *   CONFLICTING_CREDENTIALS, AUTH_RATE_LIMITED, OVERLOADED
 */
function route(deps: UpgradeDeps, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const url = requestUrl(request);
  const isSocketIo = url?.pathname === SOCKET_IO_PATH;
  const matched = url && !isSocketIo ? matchEndpoint(url.pathname) : undefined;
  if (!url || (!isSocketIo && !matched)) throw new TollgateError('ENDPOINT_NOT_FOUND');
  const retryAfterMs = deps.drainingForMs();
  if (retryAfterMs !== undefined) throw new TollgateError('SERVER_DRAINING', { retryAfterMs });
  if (!originAllowed(request.headers.origin, deps.allowedOrigins)) throw new TollgateError('ORIGIN_NOT_ALLOWED');
  checkUpgradeForm(request, head);
  if (matched) deps.raw.upgrade(request, socket, head, { ...matched, url });
  else deps.socketIo.upgrade(request, socket, head);
}
