/** Tags that models without a reasoning parser write around their reasoning, at the beginning of the text. */
const TAGS: readonly (readonly [string, string])[] = [
  ['<think>', '</think>'],
  ['<thinking>', '</thinking>'],
  ['<thought>', '</thought>'],
  ['[THINK]', '[/THINK]'],
  ['<seed:think>', '</seed:think>'],
  ['◁think▷', '◁/think▷'],
];
/** The end of reasoning whose begin is part of the chat template, so that it never arrives. */
const LONE_ENDS = TAGS.filter(([begin]) => ['<think>', '[THINK]', '◁think▷'].includes(begin));

export interface TextPiece {
  readonly text: string;
  readonly reasoning: string;
}

/**
 * Separates reasoning in tags from the text of a streamed reply. Only tags at the beginning count: later ones are part
 * of the text. Characters that may be the begin of a tag are held back until more follows.
 */
export class ThinkingTags {
  /** `start`: nothing but blanks and a possible tag so far; otherwise the kind of the text that follows. */
  #state: 'start' | 'reasoning' | 'text' = 'start';
  #held = '';
  #end = '';

  append(piece: string): TextPiece {
    this.#held += piece;
    if (this.#state === 'start') this.#begin();
    if (this.#state === 'text') return { text: this.#take(this.#held.length), reasoning: '' };
    if (this.#state === 'start') return { text: '', reasoning: '' };
    const at = this.#held.indexOf(this.#end);
    if (at < 0) return { text: '', reasoning: this.#take(this.#held.length - partialTag(this.#held, this.#end)) };
    const reasoning = this.#take(at);
    this.#take(this.#end.length);
    this.#state = 'start';
    const after = this.append('');
    return { text: after.text, reasoning: reasoning + after.reasoning };
  }

  /** Returns what was held back, at the end of the reply. */
  flush(): TextPiece {
    const rest = this.#take(this.#held.length);
    return this.#state === 'reasoning' ? { text: '', reasoning: rest } : { text: rest, reasoning: '' };
  }

  #begin(): void {
    const begun = this.#held.trimStart();
    const tag = TAGS.find(([begin]) => begun.startsWith(begin));
    if (tag) {
      this.#held = begun.slice(tag[0].length);
      this.#end = tag[1];
      this.#state = 'reasoning';
    } else if (begun !== '' && !TAGS.some(([begin]) => begin.startsWith(begun))) {
      this.#state = 'text';
    }
  }

  #take(length: number): string {
    const taken = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return taken;
  }
}

/**
 * Returns the part of a text after the end of reasoning whose begin never arrived; the whole text without one. A text
 * that names both tags is about them.
 */
export function afterLoneEnd(text: string): string {
  for (const [begin, end] of LONE_ENDS) {
    const at = text.indexOf(end);
    if (at >= 0 && !text.includes(begin)) return text.slice(at + end.length);
  }
  return text;
}

/** Returns the number of characters at the end of a text that may be the begin of a tag. */
function partialTag(text: string, tag: string): number {
  for (let length = Math.min(tag.length - 1, text.length); length > 0; length--) {
    if (tag.startsWith(text.slice(-length))) return length;
  }
  return 0;
}
