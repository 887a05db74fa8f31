/** Lifetime of a resource that a test opens: until the end of that test, or of its file. */
export type Lifetime = 'test' | 'file';

type Close = () => unknown;

// Jest gives every test file its own copy of this module, so the list belongs to the file.
const open: Record<Lifetime, Close[]> = { test: [], file: [] };

/** Registers a resource to be closed, on the line after the one that opens it. */
export function closeAfter(lifetime: Lifetime, close: Close): void {
  open[lifetime].push(close);
}

export function closeTestResources(): Promise<void> {
  return closeAll(open.test.splice(0));
}

export async function closeFileResources(): Promise<void> {
  await closeTestResources();
  await closeAll(open.file.splice(0));
}

/** Closes the newest first, and all of them despite failures. */
async function closeAll(closers: Close[]): Promise<void> {
  const failures: unknown[] = [];
  for (const close of closers.reverse()) {
    try {
      await close();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, 'something a test opened could not be closed');
}
