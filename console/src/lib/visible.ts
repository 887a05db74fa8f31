/**
 * Characters that are not seen, or that change the order of others: controls except line breaks and tabs, embeddings,
 * overrides and isolates of the bidirectional algorithm, spaces of width zero, and tags (Unicode U+E0000 to U+E007F).
 */
const HIDDEN = /(?![\n\r\t])[\p{Cc}\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/gu;

/** Writes hidden characters as escapes, so that an operator approves what a tool receives. */
export function visible(text: string): string {
  return text.replace(HIDDEN, (character) => {
    return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
  });
}
