import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { build } from 'esbuild';
import { publint } from 'publint';
import { buildWheel, NPM_PACKAGES, packPackages, run as runIn } from '../../scripts/lib/packages.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { describeWith, PYTHON_CLIENTS } from '../support/programs.ts';
import { stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

const MAX_GZIPPED_BYTES = 12 * 1024;

let project: string;
let tarballs: string[];
beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'tollgate-client-'));
  tarballs = packPackages(project);
  writeFileSync(join(project, 'package.json'), '{ "name": "empty", "private": true }');
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--legacy-peer-deps', ...tarballs]);
  // The peers, and the types that a project with TypeScript has.
  for (const name of ['socket.io-client', 'react', '@types']) {
    symlinkSync(join(PROJECT_ROOT, 'node_modules', name), join(project, 'node_modules', name));
  }
}, 60_000);
afterAll(() => rmSync(project, { recursive: true, force: true }));

const run = (command: string, args: readonly string[], env: Record<string, string> = {}) =>
  runIn(command, args, project, env);

const CHAT = `
  const tollgate = new Tollgate({ url: process.env.URL, getToken: () => process.env.TOKEN });
  const types = [];
  for await (const event of tollgate.run('How is my workload doing?')) types.push(event.type);
  tollgate.close();
  console.log(types.join(' '));
`;

describe('the packed packages in an empty project', () => {
  it.each([
    ['an ES module', 'chat.mjs', `import { Tollgate } from '@tollgate/client';${CHAT}`],
    ['CommonJS', 'chat.cjs', `(async () => { const { Tollgate } = await import('@tollgate/client');${CHAT}})();`],
  ])('runs an agent from %s and lets the process end', (_, name, source) => {
    writeFileSync(join(project, name), source);
    const { token } = mintToken();
    const out = run(process.execPath, [name], { URL: stack().gateways[0]?.url ?? '', TOKEN: token });
    expect(out.split(' ')[0]).toBe('agent_started');
    expect(out.trim().split(' ').at(-1)).toBe('agent_completed');
  });

  it.each([
    ['bundler', 'esnext'],
    ['node16', 'node16'],
  ])('has types that compile with moduleResolution %s', (moduleResolution, module) => {
    writeFileSync(
      join(project, 'types.mts'),
      `import { Tollgate, type RunEvent } from '@tollgate/client';
      import { socketIoTransport } from '@tollgate/client/socketio';
      import { TollgateProvider, useRun, useThread, useUsage } from '@tollgate/react';
      import { createElement } from 'react';
      import { io } from 'socket.io-client';
      const tollgate = new Tollgate({ url: '', getToken: async () => null, transport: socketIoTransport(io) });
      for await (const event of tollgate.run('x')) if (event.type === 'agent_completed') event.final_response.trim();
      export const done: Promise<string> = tollgate.run('x').result().then(({ text }) => text);
      export const page = createElement(TollgateProvider, { client: tollgate }, null);
      export function useTitle(): string {
        const { text, state } = useRun({ agent: 'triage' });
        const [first] = useThread('t1').messages;
        // @ts-expect-error a client or its options
        createElement(TollgateProvider, {});
        return state === 'completed' ? text : (first?.text ?? String(useUsage().usage?.today));
      }
      export function name(event: RunEvent): string {
        // @ts-expect-error a thought has no tool
        return event.type === 'agent_thinking' ? event.tool_name : event.type;
      }`,
    );
    const options = ['--strict', '--noEmit', '--target', 'es2024', '--lib', 'es2024,dom', '--skipLibCheck', 'false'];
    const modules = ['--moduleResolution', moduleResolution, '--module', module];
    run(join(PROJECT_ROOT, 'node_modules/.bin/tsc'), [...options, ...modules, 'types.mts']);
  });

  it.each(NPM_PACKAGES)('of %s has no finding of publint', async (name) => {
    const pkgDir = join(project, 'node_modules/@tollgate', name);
    const { messages } = await publint({ pkgDir, pack: false, strict: true });
    expect(messages).toEqual([]);
  });

  it('of react is a client module', () => {
    const entry = readFileSync(join(project, 'node_modules/@tollgate/react/dist/main.js'), 'utf8');
    expect(entry).toMatch(/^'use client';/);
  });

  it(`is at most ${MAX_GZIPPED_BYTES / 1024} KiB minified and gzipped, and needs nothing of Node`, async () => {
    const entry = join(project, 'entry.mjs');
    writeFileSync(entry, `export * from '@tollgate/client';`);
    const outfile = join(project, 'bundle.js');
    await build({ entryPoints: [entry], outfile, bundle: true, minify: true, format: 'esm', platform: 'browser' });
    const bytes = gzipSync(readFileSync(outfile)).length;
    process.stderr.write(`@tollgate/client: ${bytes} bytes minified and gzipped\n`);
    expect(bytes).toBeLessThan(MAX_GZIPPED_BYTES);
  });
});

describeWith(PYTHON_CLIENTS, 'the wheel in an empty folder', () => {
  it('has the client with its types, and runs an agent', () => {
    const folder = mkdtempSync(join(project, 'python-'));
    const pip = ['-m', 'pip', 'install', '--no-index', '--no-deps', '--target', folder, buildWheel(project)];
    run(PYTHON_CLIENTS.command, pip);
    const script = `
import os
from importlib.resources import files
from tollgate_client import SyncTollgate
assert files("tollgate_client").joinpath("py.typed").is_file()
with SyncTollgate(os.environ["URL"], lambda _: os.environ["TOKEN"]) as tollgate:
    print(tollgate.run("How is my workload doing?").result().text)`;
    const env = { PYTHONPATH: folder, URL: stack().gateways[0]?.url ?? '', TOKEN: mintToken().token };
    expect(run(PYTHON_CLIENTS.command, ['-c', script], env)).not.toBe('');
  }, 30_000);
});
