import { writeSync } from 'node:fs';

/**
 * Ends the output with one plain line, `N passed, N failed`, for programs and hurried readers. A file that could not
 * run counts as a failure, because its tests did not pass.
 */
export default class ClosingLineReporter {
  onRunComplete(_contexts, results) {
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    const skipped = results.numPendingTests + results.numTodoTests;
    const tail = skipped > 0 ? `, ${skipped} skipped` : '';
    const line = `${results.numPassedTests} passed, ${failed} failed${tail}\n`;
    // Jest prints its own summary after this. Only a synchronous write at the exit comes last.
    process.once('exit', () => writeSync(process.stdout.fd, line));
  }
}
