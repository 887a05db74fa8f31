import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { closeAfter, type Lifetime } from './open-resources.ts';

/** One request to the token or introspection endpoint, and its handling. */
export interface ReceivedRequest {
  readonly path: string;
  readonly authorization: string | undefined;
  readonly form: Readonly<Record<string, string>>;
}
export type Behaviour = (response: ServerResponse, requests: ReceivedRequest) => void;

export const json =
  (body: unknown, status = 200, headers: Record<string, string> = {}): Behaviour =>
  (response) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));

const plain =
  (body: string, contentType: string, status = 200): Behaviour =>
  (response) =>
    response.writeHead(status, { 'content-type': contentType }).end(body);

/** A valid response of a token endpoint. */
export const ISSUED = { access_token: 'next.access.token', token_type: 'Bearer', expires_in: 60 };

/** All faults of an auth service, by name. */
export const FAULTS = {
  hang: () => {},
  slowBody: (response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': '500' }).write('{"access_token":');
  },
  oversized: plain(JSON.stringify({ ...ISSUED, active: true, filler: 'x'.repeat(200_000) }), 'application/json'),
  oversizedWithoutLength: (response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).write('{"filler":"');
    response.end(`${'x'.repeat(200_000)}"}`);
  },
  redirect: (response) => response.writeHead(302, { location: '/elsewhere' }).end(),
  wrongType: plain(JSON.stringify({ ...ISSUED, active: true }), 'text/plain'),
  html: plain('<html>Welcome to the proxy</html>', 'text/html'),
  halfJson: plain('{"access_token":"secret-half', 'application/json'),
  noFields: json({}),
  otherFields: json({ ...ISSUED, active: 'yes', expires_in: 'soon' }),
  notHttp: (response) => response.socket?.end('SSH-2.0-OpenSSH_9.6\r\n'),
  reset: (response) => response.socket?.resetAndDestroy(),
  internalError: json({ error: 'server_error', stack: 'at Object.<anonymous> (/srv/secret.js)' }, 500),
  unavailable: json({ error: 'temporarily_unavailable' }, 503),
  tooMany: json({ error: 'temporarily_unavailable' }, 429, { 'retry-after': '30' }),
  unknownClient: json({ error: 'invalid_client', error_description: 'secret-description' }, 401),
} satisfies Record<string, Behaviour>;

/** An auth service with scripted responses over real sockets. */
export class FaultyAuthServer {
  readonly url: string;
  /** Requests to the token and introspection endpoints. */
  readonly requests: ReceivedRequest[] = [];
  /** Number of metadata requests. */
  metadataRequests = 0;
  /** Any other requested path. */
  readonly strays: string[] = [];
  behaviour: Behaviour = json(ISSUED);
  /** Replaces the valid metadata. */
  metadata: Behaviour;

  constructor(url: string) {
    this.url = url;
    this.metadata = json(this.document());
  }

  document(changes: Record<string, unknown> = {}): Record<string, unknown> {
    const endpoints = { token_endpoint: `${this.url}/token`, introspection_endpoint: `${this.url}/introspect` };
    return { issuer: this.url, ...endpoints, ...changes };
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '';
    const form = Object.fromEntries(new URLSearchParams(await text(request)));
    const requests = { path, authorization: request.headers.authorization, form };
    if (path.startsWith('/.well-known/')) {
      this.metadataRequests += 1;
      return this.metadata(response, requests);
    }
    if (path !== '/token' && path !== '/introspect') this.strays.push(path);
    this.requests.push(requests);
    this.behaviour(response, requests);
  }
}

export async function startFaultyAuthServer(lifetime: Lifetime = 'test'): Promise<FaultyAuthServer> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeAfter(lifetime, () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  const faulty = new FaultyAuthServer(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  // An aborted request has no response to wait for.
  server.on('request', (request, response) => faulty.handle(request, response).catch(() => response.destroy()));
  return faulty;
}
