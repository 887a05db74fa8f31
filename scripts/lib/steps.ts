/** Prints the progress of a longer script: one line per step, with a tick and its duration. */
export class Steps {
  readonly #write: (text: string) => void;
  readonly #colour: boolean;

  constructor(out: { write(text: string): unknown; readonly isTTY?: boolean }) {
    this.#write = (text) => out.write(`${text}\n`);
    this.#colour = out.isTTY === true && !process.env.NO_COLOR;
  }

  /** Runs one step; `describe` formats its result. The caller reports a failure. */
  async run<T>(describe: (result: T) => string, work: () => Promise<T>): Promise<T> {
    const startedAt = performance.now();
    const result = await work();
    this.#write(`${this.#paint('32', '✔')} ${describe(result).padEnd(64)} ${duration(performance.now() - startedAt)}`);
    return result;
  }

  note(text: string): void {
    this.#write(`${this.#paint('33', '•')} ${text}`);
  }

  fail(text: string): void {
    this.#write(`${this.#paint('31', '✖')} ${text}`);
  }

  plain(text: string): void {
    this.#write(text);
  }

  #paint(code: string, text: string): string {
    return this.#colour ? `\u001b[${code}m${text}\u001b[0m` : text;
  }
}

export function duration(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`;
}
