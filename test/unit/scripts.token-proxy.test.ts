import { createServer, type IncomingMessage, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { beforeEach, describe, expect, it } from '@jest/globals';
import { LOOPBACK } from '../../scripts/lib/ports.ts';
import { startTokenProxy } from '../../scripts/lib/token-proxy.ts';
import { closeAfter } from '../support/open-resources.ts';

/** A server that records its requests. */
async function server(): Promise<{ url: string; asked: IncomingMessage[] }> {
  const asked: IncomingMessage[] = [];
  const http = createServer((incoming, outgoing) => {
    asked.push(incoming);
    outgoing.end('answered');
  });
  await new Promise<void>((resolve) => http.listen(0, LOOPBACK, resolve));
  closeAfter('test', () => {
    http.closeAllConnections();
    http.close();
  });
  return { url: `http://${LOOPBACK}:${(http.address() as AddressInfo).port}`, asked };
}

/** Sends a request with a literal target, which `fetch` would normalize. */
function ask(proxy: string, path: string): Promise<number | undefined> {
  const { hostname, port } = new URL(proxy);
  return new Promise((resolve, reject) => {
    request({ hostname, port, path, agent: false }, (answer) => {
      answer.resume().once('end', () => resolve(answer.statusCode));
    })
      .once('error', reject)
      .end();
  });
}

describe('the proxy that adds a token', () => {
  let gateway: Awaited<ReturnType<typeof server>>;
  let tokens: number;
  let refused: boolean;
  let proxy: string;

  beforeEach(async () => {
    gateway = await server();
    tokens = 0;
    refused = false;
    const started = await startTokenProxy(gateway.url, async () => {
      tokens += 1;
      if (refused) throw new Error('refused');
      return `token-${tokens}`;
    });
    closeAfter('test', () => started.close());
    proxy = started.url;
  });

  it('asks the gateway, with one token for many requests', async () => {
    expect(await ask(proxy, '/mcp?a=b')).toBe(200);
    expect(await ask(proxy, '/mcp')).toBe(200);
    expect(gateway.asked.map(({ url, headers }) => [url, headers.authorization])).toEqual([
      ['/mcp?a=b', 'Bearer token-1'],
      ['/mcp', 'Bearer token-1'],
    ]);
  });

  it.each([
    ['begins with two slashes', (host: string) => `//${host}/`],
    ['is a whole URL', (host: string) => `http://${host}/`],
  ])('sends the token only to its target, whatever host is named by a path that %s', async (_form, pathOf) => {
    const other = await server();
    await ask(proxy, pathOf(new URL(other.url).host));
    expect(other.asked).toEqual([]);
    expect(gateway.asked).toHaveLength(1);
  });

  it('asks for a token again after a refusal', async () => {
    refused = true;
    expect(await ask(proxy, '/mcp')).toBe(502);
    refused = false;
    expect(await ask(proxy, '/mcp')).toBe(200);
    expect(gateway.asked).toHaveLength(1);
  });
});
