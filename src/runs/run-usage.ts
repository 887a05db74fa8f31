import type { Fields } from '../protocol/messages.ts';
import type { UsageRecord } from '../protocol/usage.ts';

/** Tokens of one model in a run, as billed. */
export interface ModelUsage {
  readonly model: string;
  readonly input_tokens: number;
  readonly output_tokens: number;
}

/** Sums the tokens that a run is billed for, per model, for its terminal event. */
export class RunUsage {
  readonly #perModel = new Map<string, ModelUsage>();

  add({ model, input_tokens, output_tokens }: ModelUsage): void {
    const before = this.#perModel.get(model);
    this.#perModel.set(model, {
      model,
      input_tokens: (before?.input_tokens ?? 0) + input_tokens,
      output_tokens: (before?.output_tokens ?? 0) + output_tokens,
    });
  }

  /** The field of the terminal event; none if the run used no model. */
  get fields(): Fields {
    return this.#perModel.size === 0 ? {} : { usage: [...this.#perModel.values()] };
  }
}

/** Tokens of a billed record; undefined for a tool call, and for a step that is not billed. */
export function modelUsage({ tool, status, units_by_kind: kinds }: UsageRecord): ModelUsage | undefined {
  if (status !== 'success' || !kinds) return undefined;
  const { input_tokens = 0, output_tokens = 0 } = kinds;
  return { model: tool.slice(tool.indexOf(':') + 1), input_tokens, output_tokens };
}
