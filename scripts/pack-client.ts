import { packClientPackage } from './lib/client-package.ts';
import { PROJECT_ROOT } from './lib/processes.ts';

/** Builds packages/client and writes the tarball that `npm publish` would upload into the current folder. */
process.stdout.write(`${packClientPackage(process.argv[2] ?? PROJECT_ROOT)}\n`);
