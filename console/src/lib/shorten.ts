export function shorten(text: string, length: number): string {
  return text.length > length ? `${cut(text, length)}…` : text;
}

/** Cuts between characters: half a surrogate pair is none. */
export function cut(text: string, length: number): string {
  const end = /[\uD800-\uDBFF]/.test(text.charAt(length - 1)) ? length - 1 : length;
  return text.slice(0, end);
}
