import { PROJECT_ROOT } from './lib/processes.ts';
import { findSlowExpressions, readExpressionSources } from './lib/regex-rules.ts';

/**
 * `npm run check:regexes`: proves that every regular expression of the sources takes linear time. The argument replaces
 * the root of the checkout with another one that has the same folders.
 */
const [, , root = PROJECT_ROOT] = process.argv;
const { violations, proven, occurrences } = findSlowExpressions(readExpressionSources(root));
for (const violation of violations) process.stderr.write(`${violation}\n`);
if (violations.length > 0) process.exitCode = 1;
else process.stdout.write(`All ${proven} regular expressions (${occurrences} occurrences) take linear time.\n`);
