import { inTemporaryFolder, packPackages, run } from './lib/packages.ts';

const ATTW = '@arethetypeswrong/cli@0.18.5';

/**
 * `npm run check:packages`: checks that the types of the packed npm packages resolve in every kind of project. The tool
 * is fetched when it is needed, because it brings a TypeScript of its own. `npm test` covers what publint checks.
 */
inTemporaryFolder((folder) => {
  for (const tarball of packPackages(folder)) {
    const args = ['exec', '--yes', `--package=${ATTW}`, '--', 'attw', tarball, '--profile', 'esm-only'];
    process.stdout.write(run('npm', args, folder));
  }
});
