/** A failure whose text is for the person at the terminal: what failed and what to do. Printed without a stack. */
export class UserError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'UserError';
  }
}

/** One line for people; the stack only where the failure is a fault of the script itself. */
export function describeFailure(thrown: unknown): string {
  if (thrown instanceof UserError) return thrown.message;
  return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
}

/** Runs a script's main function; its result is the exit code, a failure is told and gives 1. */
export async function runScript(main: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await main();
  } catch (error) {
    process.stderr.write(`${describeFailure(error)}\n`);
    process.exitCode = 1;
  }
}
