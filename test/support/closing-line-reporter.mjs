import { writeSync } from 'node:fs';

/**
 * Ends the output with one plain line, `N passed, N failed`, for machines and hurried people. A file that could not be
 * run at all counts as a failure: it holds tests that did not pass.
 */
export default class ClosingLineReporter {
  onRunComplete(_contexts, results) {
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    const skipped = results.numPendingTests + results.numTodoTests;
    const tail = skipped > 0 ? `, ${skipped} skipped` : '';
    const line = `${results.numPassedTests} passed, ${failed} failed${tail}\n`;
    // Jest writes its own summary after this; at the exit nothing comes after, and only what is written at once is.
    process.once('exit', () => writeSync(process.stdout.fd, line));
  }
}
