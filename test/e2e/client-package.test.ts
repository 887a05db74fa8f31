import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { build } from 'esbuild';
import { packClientPackage } from '../../scripts/lib/client-package.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { stack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

const MAX_GZIPPED_BYTES = 12 * 1024;

let project: string;
beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'tollgate-client-'));
  const tarball = packClientPackage(project);
  writeFileSync(join(project, 'package.json'), '{ "name": "empty", "private": true }');
  run('npm', ['install', '--offline', '--no-audit', '--no-fund', '--legacy-peer-deps', tarball]);
  // The optional peer of `@tollgate/client/socketio`, and the types that a project with TypeScript has.
  for (const name of ['socket.io-client', '@types']) {
    symlinkSync(join(PROJECT_ROOT, 'node_modules', name), join(project, 'node_modules', name));
  }
}, 60_000);
afterAll(() => rmSync(project, { recursive: true, force: true }));

function run(command: string, args: readonly string[], env: Record<string, string> = {}): string {
  const options = { cwd: project, encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '', ...env } } as const;
  const { status, stdout, stderr } = spawnSync(command, args, options);
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
}

const CHAT = `
  const tollgate = new Tollgate({ url: process.env.URL, getToken: () => process.env.TOKEN });
  const types = [];
  for await (const event of tollgate.run('How is my workload doing?')) types.push(event.type);
  tollgate.close();
  console.log(types.join(' '));
`;

describe('the packed client in an empty project', () => {
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
      import { io } from 'socket.io-client';
      const tollgate = new Tollgate({ url: '', getToken: async () => null, transport: socketIoTransport(io) });
      for await (const event of tollgate.run('x')) if (event.type === 'agent_completed') event.final_response.trim();
      export const done: Promise<string> = tollgate.run('x').result().then(({ text }) => text);
      export function name(event: RunEvent): string {
        // @ts-expect-error a thought has no tool
        return event.type === 'agent_thinking' ? event.tool_name : event.type;
      }`,
    );
    const options = ['--strict', '--noEmit', '--target', 'es2024', '--lib', 'es2024,dom', '--skipLibCheck', 'false'];
    const modules = ['--moduleResolution', moduleResolution, '--module', module];
    run(join(PROJECT_ROOT, 'node_modules/.bin/tsc'), [...options, ...modules, 'types.mts']);
  });

  it(`is at most ${MAX_GZIPPED_BYTES / 1024} KiB minified and gzipped, and needs nothing of Node`, async () => {
    const entry = join(project, 'entry.mjs');
    writeFileSync(entry, `export * from '@tollgate/client';`);
    const outfile = join(project, 'bundle.js');
    await build({ entryPoints: [entry], outfile, bundle: true, minify: true, format: 'esm', platform: 'browser' });
    expect(gzipSync(readFileSync(outfile)).length).toBeLessThan(MAX_GZIPPED_BYTES);
  });
});
