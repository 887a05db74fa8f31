import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { LOOPBACK } from '../../scripts/lib/ports.ts';
import { listening } from './links.ts';

/** The current key and older ones, whose tokens remain valid. */
const PUBLISHED_KEYS = 3;

interface SigningKey {
  readonly kid: string;
  readonly key: KeyObject;
}

/** The signing keys of an issuer, and the server that publishes them (RFC 7517). */
export class KeyServer {
  readonly url: string;
  /** Answers 503 while true. */
  isDown = false;
  readonly #server: Server;
  #keys: readonly SigningKey[] = [newKey()];

  private constructor(server: Server) {
    this.#server = server;
    this.url = `http://${LOOPBACK}:${(server.address() as AddressInfo).port}/keys`;
  }

  static async start(): Promise<KeyServer> {
    const server = createServer();
    const keys = new KeyServer(await listening(server));
    server.on('request', (_request, response) => {
      const type = { 'content-type': 'application/json' };
      if (keys.isDown) response.writeHead(503, type).end('{"error":"temporarily_unavailable"}');
      else response.writeHead(200, type).end(JSON.stringify({ keys: keys.#keys.map(published) }));
    });
    return keys;
  }

  /** The key that signs new tokens, ES256. */
  get current(): SigningKey {
    return this.#keys[0] ?? newKey();
  }

  rotate(): void {
    this.#keys = [newKey(), ...this.#keys].slice(0, PUBLISHED_KEYS);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function newKey(): SigningKey {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { kid: randomUUID(), key: privateKey };
}

function published({ kid, key }: SigningKey): object {
  return { ...createPublicKey(key).export({ format: 'jwk' }), kid, alg: 'ES256', use: 'sig' };
}
