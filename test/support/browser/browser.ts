import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { build } from 'esbuild';
import { type BrowserContext, chromium } from 'playwright-core';
import { PROJECT_ROOT } from '../../../scripts/lib/processes.ts';
import { closeAfter } from '../open-resources.ts';
import { CHROMIUM } from '../programs.ts';

/** The origin of pages that the gateways of the tests allow (CORS_ORIGINS). */
const HOST = 'app.example.test';
const SOURCES = {
  '@tollgate/client': join(PROJECT_ROOT, 'packages/client/src/main.ts'),
  '@tollgate/react': join(PROJECT_ROOT, 'packages/react/src/main.ts'),
};

const PAGE = '<!doctype html><div id="root"></div><script type="module" src="/page.js"></script>';

export interface TestBrowser {
  readonly context: BrowserContext;
  /** Address of the page with these parameters. */
  readonly address: (parameters: Readonly<Record<string, string>>) => string;
}

/** Bundles page.mjs, serves it, and starts a browser. Closed when the test file ends. */
export async function openBrowser(): Promise<TestBrowser> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, 'page.mjs')],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    alias: SOURCES,
    define: { 'process.env.NODE_ENV': '"development"' },
    logLevel: 'error',
  });
  const script = outputFiles[0]?.text ?? '';
  const server = createServer(({ url }, response) => {
    const isScript = url === '/page.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? script : PAGE);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closeAfter('file', () => server.close());
  const browser = await chromium.launch({
    executablePath: CHROMIUM.command,
    // As root Chromium has no sandbox. Web Locks exist on secure pages only.
    args: [
      '--no-sandbox',
      `--host-resolver-rules=MAP ${HOST}:80 127.0.0.1:${(server.address() as AddressInfo).port}`,
      `--unsafely-treat-insecure-origin-as-secure=http://${HOST}`,
    ],
  });
  closeAfter('file', () => browser.close());
  const context = await browser.newContext();
  return { context, address: (parameters) => `http://${HOST}/?${new URLSearchParams(parameters)}` };
}
