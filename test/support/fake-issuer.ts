import { generateKeyPairSync } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import jwt from 'jsonwebtoken';

/** An issuer with one RS256 key that serves whatever a test sets for a path. */
export class FakeIssuer {
  readonly kid = 'key-1';
  readonly #pair = generateKeyPairSync('rsa', { modulusLength: 2_048 });
  readonly #server: Server;
  /** Responses by path; `/jwks.json` has the key by default. */
  readonly routes = new Map<string, (request: IncomingMessage, response: ServerResponse) => void>();

  constructor() {
    this.routes.set('/jwks.json', (_request, response) => response.end(JSON.stringify({ keys: [this.jwk] })));
    this.#server = createServer((request, response) => {
      const route = this.routes.get((request.url ?? '').split('?')[0] ?? '');
      if (route) return route(request, response.setHeader('content-type', 'application/json'));
      response.writeHead(404).end();
    });
  }

  get jwk(): object {
    return { ...this.#pair.publicKey.export({ format: 'jwk' }), kid: this.kid, use: 'sig', alg: 'RS256' };
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get keysUrl(): string {
    return `${this.url}/jwks.json`;
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
  }

  /** Signs claims as they are; undefined members are left out. */
  sign(claims: object, header: object = { typ: 'JWT', kid: this.kid }): string {
    const given = JSON.parse(JSON.stringify(claims)) as object;
    const options = {
      algorithm: 'RS256',
      noTimestamp: !('iat' in given),
      header: { alg: 'RS256', typ: undefined, ...header },
    } as const;
    return jwt.sign(given, this.#pair.privateKey, options);
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}
