import type { RunEvent } from '@tollgate/client';

/** The text of a run: the thoughts of its steps, without those of a step that was interrupted and replaced. */
export class RunText {
  #steps: { readonly step: number; text: string }[] = [];

  get value(): string {
    return this.#steps.map(({ text }) => text).join('\n\n');
  }

  add(event: RunEvent): void {
    if (event.type !== 'agent_thinking') return;
    const { step, thought, replaces_step } = event;
    if (replaces_step !== undefined) this.#steps = this.#steps.filter((other) => other.step !== replaces_step);
    const last = this.#steps.at(-1);
    if (last?.step === step) last.text += thought;
    else this.#steps.push({ step, text: thought });
  }
}
