import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { LongTasks } from '../limits/long-tasks.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import { destroyOnError } from './bounded-websockets.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import { matchEndpoint } from './endpoints.ts';
import { requestUrl } from './handshake-request.ts';
import type { Origins } from './origins.ts';
import type { RawWebSockets } from './raw-websocket.ts';
import { refuseUpgrade } from './refusals.ts';
import { SOCKET_IO_PATH, type SocketIo } from './socket-io.ts';
import { checkUpgradeForm } from './upgrade-form.ts';

export interface UpgradeDeps {
  readonly guard: Pick<ConnectionGuard, 'addressOf' | 'refused'>;
  readonly longTasks: Pick<LongTasks, 'run'>;
  readonly raw: RawWebSockets;
  readonly socketIo: SocketIo;
  readonly origins: Pick<Origins, 'allow'>;
  /** Milliseconds after which clients should try another node; undefined unless this node is draining. */
  readonly drainRetryMs: () => number | undefined;
}

/**
 * Handles the HTTP upgrades of a server. Checks path, draining, origin and form, and rejects with plain HTTP before a
 * transport receives the socket.
 */
export function listenForUpgrades(server: Server, deps: UpgradeDeps): void {
  /** Response to the last plain request on each socket. */
  const answers = new WeakMap<Duplex, ServerResponse>();
  server.on('request', (request, response) => answers.set(request.socket, response));
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // The WebSocket removes it, and listens itself.
    socket.on('error', destroyOnError);
    const earlier = answers.get(socket);
    if (earlier && !earlier.writableFinished) return refusePipelined(socket, earlier);
    const task = { surface: 'upgrade', address: () => deps.guard.addressOf(request) } as const;
    deps.longTasks.run(task, () => {
      try {
        route(deps, request, socket, head);
      } catch (thrown) {
        const error = toTollgateError(thrown);
        // Not counted for foreign origins: their pages could send invalid requests to block the address of a visitor.
        if (deps.origins.allow(request)) deps.guard.refused(request, error);
        refuseUpgrade(socket, error);
      }
    });
  });
}

/**
 * Rejects an upgrade that follows a request whose response is not complete. Node emits such an upgrade, and the
 * response would be written into the WebSocket. Responses must have the order of the requests (RFC 9112 section 9.3.2).
 */
function refusePipelined(socket: Duplex, earlier: ServerResponse): void {
  const text = 'Send an upgrade request only after the response to the previous request has arrived.';
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
  const retryAfterMs = deps.drainRetryMs();
  if (retryAfterMs !== undefined) throw new TollgateError('SERVER_DRAINING', { retryAfterMs });
  if (!deps.origins.allow(request)) throw new TollgateError('ORIGIN_NOT_ALLOWED');
  checkUpgradeForm(request, head);
  if (matched) deps.raw.upgrade(request, socket, head, { ...matched, url });
  else deps.socketIo.upgrade(request, socket, head);
}
