import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { NPM_PACKAGES, run } from './lib/packages.ts';
import { PROJECT_ROOT } from './lib/processes.ts';

/** TypeDoc needs the API of TypeScript 6, which TypeScript 7 does not have. */
const TYPEDOC = ['--package=typedoc@0.28.20', '--package=typescript@6.0.3'];
const OUT = join(PROJECT_ROOT, 'docs/api');
/** Subpaths beside `.`. */
const ENTRIES: Readonly<Record<string, readonly string[]>> = {
  client: ['main', 'socketio', 'ledger'],
  react: ['main'],
};
const PYTHON_MODULES = ['client', 'sync', 'run', 'ledger', 'errors', 'position', 'transports', 'sse'];

/** `npm run build:docs`: writes the reference of the client packages into docs/api, which is not committed. */
rmSync(OUT, { recursive: true, force: true });
for (const name of NPM_PACKAGES) {
  const source = join(PROJECT_ROOT, 'packages', name);
  const entries = (ENTRIES[name] ?? []).flatMap((entry) => ['--entryPoints', join(source, `src/${entry}.ts`)]);
  const readme = ['--readme', join(source, 'README.md'), '--name', `@tollgate/${name}`];
  const options = ['--skipErrorChecking', '--disableSources', '--excludePrivate', '--out', join(OUT, name)];
  run('npm', ['exec', '--yes', ...TYPEDOC, '--', 'typedoc', ...entries, ...readme, ...options], PROJECT_ROOT);
}
mkdirSync(join(OUT, 'python'), { recursive: true });
const modules = ['tollgate_client', ...PYTHON_MODULES.map((name) => `tollgate_client.${name}`)];
run('/usr/bin/python3', ['-B', '-m', 'pydoc', '-w', ...modules], join(OUT, 'python'), {
  PYTHONPATH: join(PROJECT_ROOT, 'packages/python/src'),
});
process.stdout.write(`Written into ${OUT}.\n`);
