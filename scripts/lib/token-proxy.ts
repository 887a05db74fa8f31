import {
  createServer,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';

/** Well below the life of a development token, 60 seconds. */
const TOKEN_REUSED_MS = 20_000;

export interface TokenProxy {
  readonly url: string;
  close(): Promise<void>;
}

/**
 * An HTTP proxy on loopback that adds a user's access token to every request, for programs that cannot send one.
 * @param target the gateway's URL
 * @param token returns a fresh token
 */
export async function startTokenProxy(target: string, token: () => Promise<string>): Promise<TokenProxy> {
  let held: { readonly token: Promise<string>; readonly until: number } | undefined;
  const currentToken = () => {
    if (!held || Date.now() >= held.until) {
      const asked = { token: token(), until: Date.now() + TOKEN_REUSED_MS };
      held = asked;
      // A failure is not cached: the next request tries again.
      asked.token.catch(() => {
        if (held === asked) held = undefined;
      });
    }
    return held.token;
  };
  let own = '';
  const server = createServer((incoming, outgoing) => {
    // Rewrites the proxy's own origin to the gateway's, which does not know this address; other origins stay unchanged.
    const { origin } = incoming.headers;
    const known = origin === own ? { origin: new URL(target).origin } : {};
    currentToken()
      .then((bearer) => {
        const headers = { ...incoming.headers, ...known, authorization: `Bearer ${bearer}` };
        pass({ target, headers }, incoming, outgoing);
      })
      .catch((error: Error) => outgoing.writeHead(502).end(error.message));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  own = `http://127.0.0.1:${port}`;
  return {
    url: own,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function pass(
  { target, headers }: { target: string; headers: IncomingHttpHeaders },
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): void {
  const { method, url: path } = incoming;
  const request = target.startsWith('https:') ? httpsRequest : httpRequest;
  // The path is used as received and never parsed as a URL: one that begins with `//` or is absolute names a host,
  // which would receive the token.
  const onward = request(target, { method, path, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(outgoing);
  });
  onward.on('error', (error) =>
    outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(502).end(error.message),
  );
  // A client that disconnects also ends the request to the gateway, which in MCP is a cancellation.
  outgoing.on('close', () => onward.destroy());
  incoming.pipe(onward);
}
