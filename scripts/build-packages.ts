import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { buildWheel, inTemporaryFolder, NPM_PACKAGES, packPackages, stagePackages } from './lib/packages.ts';
import { PROJECT_ROOT } from './lib/processes.ts';

/** Compiles the npm packages in their folders, so that imports by name work in the whole repository. */
function link(): void {
  inTemporaryFolder((staged) => {
    stagePackages(staged);
    for (const name of NPM_PACKAGES) {
      cpSync(join(staged, name, 'dist'), join(PROJECT_ROOT, 'packages', name, 'dist'), { recursive: true });
    }
  });
}

/**
 * `npm run build:packages [folder]`: writes the npm tarballs and the Python wheel into the current or the given folder.
 * With `--link` it compiles the npm packages for the examples instead.
 */
const [argument = PROJECT_ROOT] = process.argv.slice(2);
if (argument === '--link') link();
else for (const file of [...packPackages(argument), buildWheel(argument)]) process.stdout.write(`${file}\n`);
