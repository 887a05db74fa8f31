import { findViolations, longFiles, readSources } from './lib/import-rules.ts';
import { PROJECT_ROOT } from './lib/processes.ts';

/** `npm run check:imports`: checks import directions, import cycles and file lengths. */
const sources = readSources(PROJECT_ROOT);
const violations = findViolations(sources);
for (const file of longFiles(sources)) process.stderr.write(`warning: ${file}\n`);
for (const violation of violations) process.stderr.write(`${violation}\n`);
if (violations.length > 0) process.exitCode = 1;
else process.stdout.write(`The imports of ${sources.length} files are in order.\n`);
