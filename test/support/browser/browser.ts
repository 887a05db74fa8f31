import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
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

/** A page, and its compiled script. */
export interface PageSource {
  /** Path of the script. */
  readonly entry: string;
  /** Path of an HTML file that loads `/build/main.js`; by default one with a `root` and the script alone. */
  readonly html?: string;
}

const OWN_PAGE: PageSource = { entry: join(import.meta.dirname, 'page.mjs') };
const OWN_HTML = '<!doctype html><div id="root"></div><script type="module" src="/build/main.js"></script>';
const CONTENT_TYPES: Readonly<Record<string, string>> = { '.js': 'text/javascript', '.css': 'text/css' };

export interface TestBrowser {
  readonly context: BrowserContext;
  /** Address of the page with these parameters. */
  readonly address: (parameters: Readonly<Record<string, string>>) => string;
}

/** Bundles a page, serves it, and starts a browser. Closed when the test file ends. */
export async function openBrowser({ entry, html }: PageSource = OWN_PAGE): Promise<TestBrowser> {
  const { outputFiles } = await build({
    entryPoints: { main: entry },
    bundle: true,
    write: false,
    outdir: '/build',
    format: 'esm',
    jsx: 'automatic',
    platform: 'browser',
    alias: SOURCES,
    loader: { '.woff': 'file', '.woff2': 'file', '.ttf': 'file' },
    define: { 'process.env.NODE_ENV': '"development"' },
    logLevel: 'error',
  });
  const files = new Map(outputFiles.map(({ path, contents }) => [path, contents]));
  const page = html === undefined ? OWN_HTML : await readFile(html);
  const server = createServer(({ url = '' }, response) => {
    const file = files.get(url);
    response.setHeader('content-type', file ? (CONTENT_TYPES[extname(url)] ?? 'font/woff2') : 'text/html');
    response.end(file ?? page);
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
