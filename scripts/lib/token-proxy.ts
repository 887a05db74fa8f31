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
 * An HTTP proxy on loopback that adds a user's access token to every request: for programs that cannot be given one.
 * @param target the gateway's URL
 * @param token a fresh token
 */
export async function startTokenProxy(target: string, token: () => Promise<string>): Promise<TokenProxy> {
  let held: { readonly token: Promise<string>; readonly until: number } | undefined;
  const currentToken = () => {
    if (!held || Date.now() >= held.until) {
      const asked = { token: token(), until: Date.now() + TOKEN_REUSED_MS };
      held = asked;
      // A refusal is not kept: the next request asks again.
      asked.token.catch(() => {
        if (held === asked) held = undefined;
      });
    }
    return held.token;
  };
  let own = '';
  const server = createServer((incoming, outgoing) => {
    // A page of the proxy's own is one of the gateway's, which knows nothing of this address; others stay what they are.
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
  // The path as it came, and never as a URL: one that begins with `//`, or is absolute, names a host, which would be given
  // the token.
  const onward = request(target, { method, path, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(outgoing);
  });
  onward.on('error', (error) =>
    outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(502).end(error.message),
  );
  // A client that hangs up hangs up on the gateway too: in MCP that is a cancellation.
  outgoing.on('close', () => onward.destroy());
  incoming.pipe(onward);
}
