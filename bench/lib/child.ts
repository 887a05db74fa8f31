import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** A process of this benchmark that does what it is told, one order at a time. */
export interface Child<Order, Answer> {
  readonly pid: number;
  /** @throws Error with what the process says went wrong, or when it ends */
  send(order: Order): Promise<Answer>;
  close(): void;
}

/** @param module beside this file; it answers each message with one: its answer, or `{ error }` */
export function startChild<Order extends object, Answer extends object>(
  module: string,
  args: readonly string[],
): Child<Order, Answer> {
  const child = fork(fileURLToPath(new URL(module, import.meta.url)), args);
  return {
    pid: child.pid ?? 0,
    send: (order) =>
      new Promise((resolve, reject) => {
        const ended = (code: number | null) => reject(new Error(`${module} ended with ${code}`));
        child.once('exit', ended);
        child.once('message', (answer: Answer | { error: string }) => {
          child.off('exit', ended);
          if ('error' in answer) reject(new Error(answer.error));
          else resolve(answer);
        });
        child.send(order);
      }),
    close: () => child.kill(),
  };
}
