import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** A process of a benchmark that executes one order at a time. */
export interface Child<Order, Answer> {
  readonly pid: number;
  /** @throws Error with the failure that the process reports, or when the process ends */
  send(order: Order): Promise<Answer>;
  close(): void;
}

/** @param module a file in this folder; it replies to each message with an answer or `{ error }` */
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
