/** A failure whose text is for the user at the terminal: what failed and what to do. Printed without a stack. */
export class UserError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'UserError';
  }
}

/** Formats a failure; the stack appears only for a fault of the script itself. */
export function describeFailure(thrown: unknown): string {
  if (thrown instanceof UserError) return thrown.message;
  return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
}

/** Runs a script's main function. Its result is the exit code; a failure is printed and the exit code is 1. */
export async function runScript(main: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await main();
  } catch (error) {
    process.stderr.write(`${describeFailure(error)}\n`);
    process.exitCode = 1;
  }
}
